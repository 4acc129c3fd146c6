"""The vocabulary tokens nearest to what an image becomes in the language model, beside their chance level."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from rich.table import Table

from limber_interp.cli import (
    FIGURE_SUFFIXES,
    ProbeOptions,
    Report,
    noting_skipped,
    number_columns,
    progress,
    result_table,
    run,
    words_of,
)
from limber_interp.options import at_least
from limber_interp.overwriting import NamedPath
from limber_interp.records import ImageTokens, NearestTokens, check_writable, least_p_told
from limber_interp.text import printable, visible

if TYPE_CHECKING:
    from limber_interp.models.limber import Outline


@dataclass(frozen=True, kw_only=True)
class Options(ProbeOptions):
    """The vocabulary tokens nearest to what an image becomes in the language model, beside their chance level.

    With --figure and several images, the first figure has the name given, the next are numbered: out.png, out-2.png.
    """

    k: Annotated[int, at_least(1)] = 5
    """Tokens per position."""
    metric: Literal["cosine", "dot", "euclidean", "centred_cosine"] = "cosine"
    """How near is measured; euclidean scores are minus the distance."""
    matrix: Literal["W_E", "W_U"] = "W_E"
    """Rows of the embedding, or of the unembedding."""
    targets: Annotated[str | None, tyro.conf.arg(metavar="WORD,WORD")] = None
    """Words whose ranks and p-values to report, each a single token."""
    controls: Literal["none", "fast", "full"] = "full"
    """fast: noise and a random map; full: other images' prompts too."""
    n_draws: Annotated[int | None, tyro.conf.arg(metavar="INT"), at_least(1)] = None
    """Soft prompts per control and image; by default as many as make 100 positions."""

    def words(self) -> tuple[str, ...]:
        return words_of("--targets", self.targets)

    def figures(self) -> list[Path]:
        """One path per image."""
        if self.figure is None:
            return []
        numbers = range(2, len(self.sources()) + 1)
        return [self.figure, *(self.figure.with_stem(f"{self.figure.stem}-{n}") for n in numbers)]

    def results(self) -> Iterator[NamedPath]:
        yield from super().results()
        for path in self.figures()[1:]:
            yield NamedPath("--figure's", path)

    def check_with(self, outline: "Outline") -> None:
        from limber_interp.probes.lens import check_k

        check_k(self.k, outline.vocabulary)
        for word in self.words():
            outline.vocabulary.id_of(word)

    def check_outputs(self) -> None:
        super().check_outputs()
        self.words()
        for path in self.figures():
            check_writable(path, FIGURE_SUFFIXES)


def nearest_tokens(options: Options) -> Report:
    sources, skipped = options.opened()
    others, skipped_others = options.opened_others(options.controls)
    skipped += skipped_others
    model = options.load_model()
    from limber_interp import probes

    record = probes.nearest_tokens(
        model,
        sources,
        k=options.k,
        metric=options.metric,
        matrix=options.matrix,
        targets=options.words(),
        controls=options.controls,
        seed=model.config.seed,
        others=others,
        n_draws=options.n_draws,
        keep_seen=len(options.figures()),
        progress=lambda images: progress(images, "Nearest tokens", total=len(sources)),
    )
    record = noting_skipped(record, skipped)
    if options.figure is not None:
        from limber_interp.plotting.nearest_tokens import figure

        for i, path in zip(range(len(record.images)), options.figures(), strict=False):
            figure(record, path, image=i)
    shown = tuple(table for image in record.images for table in tables(record, image))
    return Report(record, shown, skipped=skipped)


def tables(record: NearestTokens, image: ImageTokens) -> Iterator[Table]:
    """What to show of one image: its tokens, their chance level, and the targets if there are any."""
    yield _tokens(record, image)
    yield _controls(image)
    if image.targets:
        yield _targets(record, image)


def _tokens(record: NearestTokens, image: ImageTokens) -> Table:
    table = result_table(f"{printable(image.image)}: nearest rows of {record.matrix}, {record.metric}")
    number_columns(table, "pos", *(("row", "col") if image.grid else ()), width=3)
    number_columns(table, "norm", width=5)
    width = max(len(_number(score)) for score in image.scores.ravel().tolist())
    for rank in range(1, record.k + 1):
        table.add_column(f"token {rank}", overflow="fold")
        number_columns(table, "score", width=width)
    for position, (ids, scores) in enumerate(zip(image.token_ids.tolist(), image.scores.tolist(), strict=True)):
        cells = [str(position), *map(str, image.place(position) or ()), f"{image.norms[position]:.2f}"]
        for token, score in zip(ids, scores, strict=True):
            cells += [visible(record.text(token)), _number(score)]
        table.add_row(*cells)
    low, median, high = (record.token_norms[quantile] for quantile in ("q05", "median", "q95"))
    table.caption = f"norms of the token embeddings: median {median:.2f}, 90 % of them {low:.2f} to {high:.2f}"
    return table


def _controls(image: ImageTokens) -> Table:
    table = result_table("score of the nearest token, and its chance level")
    table.add_column("soft prompt", overflow="fold")
    number_columns(table, "draws", "median", "95 %", "positions above it", width=6)
    nearest = image.scores[:, 0]
    table.add_row("this image's", "", *(_number(float(np.quantile(nearest, q))) for q in (0.5, 0.95)), "")
    for control in image.controls:
        numbers = (_number(control.median), _number(control.q95), f"{control.share_above(nearest):.0%}")
        table.add_row(f"{control.name}: {control.description}", str(control.n_draws), *numbers)
    if not image.controls:
        table.caption = "no control was run: these scores alone say nothing"
    return table


def _targets(record: NearestTokens, image: ImageTokens) -> Table:
    table = result_table(f"targets: best rank of {len(image.token_ids)} positions, p-values of it by permutation")
    table.add_column("target", overflow="fold")
    number_columns(table, "best rank", "at", f"hit@{record.k}", width=5)
    number_columns(table, *(f"by {control.name}" for control in image.controls), width=4)
    number_columns(table, "p (other words)", "p (other images)", width=5)
    for target in image.targets:
        position = target.best_position if (place := image.place(target.best_position)) is None else place
        hit = "yes" if target.best_rank <= record.k else "no"
        chance = (f"{control.hits[target.word]:.0%}" for control in image.controls)
        p_values = (_p(target.p_words, target.n_words), _p(target.p_images, target.n_images))
        table.add_row(visible(target.token), str(target.best_rank), str(position), hit, *chance, *p_values)
    n_words, n_images = (max(getattr(target, n) for target in image.targets) for n in ("n_words", "n_images"))
    table.caption = least_p_told(n_words, n_images)
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _p(p: float | None, n: int) -> str:
    return "-" if p is None else f"{p:.3f} (n = {n})"


def main(args: Sequence[str] | None = None) -> int:
    return run("nearest_tokens", Options, nearest_tokens, args)


if __name__ == "__main__":
    sys.exit(main())
