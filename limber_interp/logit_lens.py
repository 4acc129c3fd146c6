"""What the language model would say at each layer, at the positions of an image, beside its chance level."""

import re
import sys
from collections import Counter
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
from limber_interp.errors import InputError
from limber_interp.options import WRITTEN, at_least
from limber_interp.overwriting import NamedPath
from limber_interp.records import ImageLens, LensTarget, LogitLens, check_writable, least_p_told
from limber_interp.text import printable, visible

if TYPE_CHECKING:
    from limber_interp.models.limber import Outline

SIDE_BY_SIDE = 6  # positions that a table shows each on its own; of more it shows what they have most
N_COMMON = 4


@dataclass(frozen=True, kw_only=True)
class Options(ProbeOptions):
    """What the language model would say at each layer, at the positions of an image, beside its chance level.

    --figure draws the layers; with targets also their ranks and, where the image has patches, their probabilities:
    out.png, out-dog-ranks.png, out-dog-patches.png. With several images the further ones are numbered: out-2.png.
    """

    k: Annotated[int, at_least(1)] = 5
    """Tokens per layer and position."""
    prompt: str = "A picture of"
    """Text after the image."""
    positions: Annotated[str, tyro.conf.arg(metavar="WHICH")] = "image"
    """image, text, last, all, or a list of places and row:column patches, such as 0,-1,3:4."""
    layers: Annotated[str | None, tyro.conf.arg(metavar="N,N")] = None
    """0 for the input of the first block, N for the output of the Nth, -1 for the last; by default all."""
    targets: Annotated[str | None, tyro.conf.arg(metavar="WORD,WORD")] = None
    """Words to follow, each a single token."""
    target_first_token: bool = False
    """Follow the first token of a word that has several."""
    controls: Literal["none", "fast", "full"] = "full"
    """fast: noise and a random map; full: a random encoder, the mean prompt and other images' too."""
    n_draws: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(1)] = 20
    """Prompts per image of noise and of random maps, each a forward pass."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="PATH"), WRITTEN] = None
    """Write a page to explore patches, layers and tokens in a browser."""

    def words(self) -> tuple[str, ...]:
        return words_of("--targets", self.targets)

    def figures(self, image: int) -> dict[str, Path]:
        """What is drawn of one image -> where: `layers`, and per target `<word> ranks` and `<word> patches`."""
        if self.figure is None:
            return {}
        path = self.figure if image == 0 else self.figure.with_stem(f"{self.figure.stem}-{image + 1}")
        words = self.words()
        plain = [re.sub(r"\W+", "_", word.strip()) for word in words]
        names = [name if plain.count(name) == 1 else f"{name}{i}" for i, name in enumerate(plain, 1)]  # "!" and "?"
        of_targets = {
            f"{word} {kind}": path.with_stem(f"{path.stem}-{name}-{kind}")
            for word, name in zip(words, names, strict=True)
            for kind in ("ranks", "patches")
        }
        return {"layers": path, **of_targets}

    def chosen_layers(self) -> list[int] | None:
        if self.layers is None:
            return None
        try:
            return [int(layer) for layer in self.layers.split(",")]
        except ValueError:
            raise InputError(f"--layers {self.layers!r}: use numbers and commas, such as 0,6,-1") from None

    def chosen_positions(self) -> str | list[int | tuple[int, int]]:
        """The words as they are; a list as numbers and (row, column)."""
        if re.fullmatch(r"[a-z_]+", self.positions):
            return self.positions
        try:
            return [_place(place) for place in self.positions.split(",")]
        except ValueError:
            raise InputError(
                f"--positions {self.positions!r}: use image, text, last, all, or a list such as 0,-1,3:4"
            ) from None

    def results(self) -> Iterator[NamedPath]:
        yield from super().results()
        for image in range(len(self.sources())):
            for what, path in self.figures(image).items():
                if path != self.figure:
                    yield NamedPath(f"--figure's, {what},", path)

    def check_with(self, outline: "Outline") -> None:
        from limber_interp.probes.lens import check_k
        from limber_interp.probes.logit_lens import chosen_layers

        check_k(self.k, outline.vocabulary)
        chosen_layers(self.chosen_layers(), outline.n_layers)
        outline.layout(self.prompt).select(self.chosen_positions())
        for word in self.words():
            outline.vocabulary.id_of(word, self.target_first_token)

    def check_outputs(self) -> None:
        super().check_outputs()
        self.words()
        self.chosen_layers()
        self.chosen_positions()
        for image in range(len(self.sources())):
            for path in self.figures(image).values():
                check_writable(path, FIGURE_SUFFIXES)
        if self.html is not None:
            check_writable(self.html, (".html", ".htm"))


def _place(text: str) -> int | tuple[int, int]:
    match text.split(":"):
        case [position]:
            return int(position)
        case [row, col]:
            return int(row), int(col)
    raise ValueError


def logit_lens(options: Options) -> Report:
    sources, skipped = options.opened()
    others, skipped_others = options.opened_others(options.controls)
    skipped += skipped_others
    model = options.load_model()
    from limber_interp import probes

    record = probes.logit_lens(
        model,
        sources,
        k=options.k,
        positions=options.chosen_positions(),
        layers=options.chosen_layers(),
        targets=options.words(),
        controls=options.controls,
        seed=model.config.seed,
        others=others,
        prompt=options.prompt,
        target_first_token=options.target_first_token,
        n_draws=options.n_draws,
        keep_seen=len(sources) if options.figure or options.html else 0,
        progress=lambda images: progress(images, "Logit lens", total=len(sources)),
    )
    record = noting_skipped(record, skipped)
    if options.figure is not None:
        _draw(record, options)
    if options.html is not None:
        from limber_interp.plotting.explorer import explorer

        explorer(record, options.html)
    shown = tuple(table for image in record.images for table in tables(record, image))
    return Report(record, shown, skipped=skipped)


def _draw(record: LogitLens, options: Options) -> None:
    from limber_interp.plotting.logit_lens import figure, patches, ranks

    for i, image in enumerate(record.images):
        paths = options.figures(i)
        figure(record, paths["layers"], image=i)
        for word in (target.word for target in image.targets):
            ranks(record, paths[f"{word} ranks"], word, image=i)
            if image.covers_patches:
                patches(record, paths[f"{word} patches"], word, image=i)


def tables(record: LogitLens, image: ImageLens) -> Iterator[Table]:
    """What to show of one image: what each layer says, its chance level, and each target by layer."""
    yield _layers(record, image)
    yield _controls(record, image)
    for i, target in enumerate(image.targets):
        yield _target(record, image, target, i)


def _layers(record: LogitLens, image: ImageLens) -> Table:
    reading = image.reading
    table = result_table(f"{printable(image.image)}: the most probable token by layer")
    number_columns(table, "layer", "entropy", "KL to last", "as the last", width=5)
    apart = image.n_pos <= SIDE_BY_SIDE
    for heading in map(visible, map(image.label, range(image.n_pos))) if apart else (f"of {image.n_pos} positions",):
        table.add_column(heading, overflow="fold")
    for row, layer in enumerate(record.layers):
        numbers = (f"{reading.entropy[row].mean():.2f}", f"{reading.kl[row].mean():.2f}")
        agreeing = f"{reading.agrees[row].mean():.0%}"
        ids = reading.token_ids[row, :, 0].tolist()
        if apart:
            p = np.exp(reading.logprobs[row, :, 0]).tolist()
            said = [f"{visible(record.text(id))} {share:.2f}" for id, share in zip(ids, p, strict=True)]
        else:
            common = Counter(ids).most_common(N_COMMON)
            said = ["  ".join(f"{visible(record.text(id))} {n / len(ids):.0%}" for id, n in common)]
        table.add_row(str(layer), *numbers, agreeing, *said)
    table.caption = "entropy and KL in nats, means over the positions; " + (
        "beside each token its probability" if apart else "beside each token the share of positions that it leads at"
    )
    return table


def _controls(record: LogitLens, image: ImageLens) -> Table:
    table = result_table("probability of the most probable token, and its chance level: median over positions (95 %)")
    number_columns(table, "layer")
    number_columns(table, "this image", *(f"{c.name} ({c.n_draws})" for c in image.controls), width=11)
    for row, layer in enumerate(record.layers):
        own = image.reading.logprobs[row, :, 0]
        chance = (control.top_logprobs[:, row] for control in image.controls)
        table.add_row(str(layer), *(_probability(values) for values in (own, *chance)))
    table.caption = "; ".join(f"{c.name}: {c.description}" for c in image.controls)
    if image.controls:
        table.caption += f". In brackets the number of draws, seed {image.controls[0].seed}"
    else:
        table.caption = "no control was run: these probabilities alone say nothing"
    return table


def _target(record: LogitLens, image: ImageLens, target: LensTarget, i: int) -> Table:
    table = result_table(f"target {visible(target.token)}: where it is most probable, by layer")
    by_controls = [f"by {control.name}" for control in image.controls]
    number_columns(table, "layer", "best rank", "at", "probability", f"in top {record.k}", *by_controls, width=5)
    number_columns(table, "p (words)", "p (images)", width=5)
    hits = [control.hits(i, record.k) for control in image.controls]
    for row, layer in enumerate(record.layers):
        place = int(target.ranks[row].argmin())
        rank, p = int(target.ranks[row, place]), float(np.exp(target.logprobs[row, place]))
        shares = (f"{hit[row]:.0%}" for hit in hits)
        p_values = ("-" if p is None else f"{p[row]:.3f}" for p in (target.p_words, target.p_images))
        hit = "yes" if rank <= record.k else "no"
        table.add_row(str(layer), str(rank), visible(image.label(place)), f"{p:.3f}", hit, *shares, *p_values)
    numbers = f"{target.n_words} words" + (f", {target.n_images} images" if target.n_images else "")
    table.caption = (
        f"p-values of each layer's highest probability, by permutation: {numbers}; choose a layer beforehand"
    )
    if least := least_p_told(target.n_words, target.n_images):
        table.caption += f"; {least}"
    return table


def _probability(logprobs: np.ndarray) -> str:
    median, high = np.exp(np.quantile(logprobs, (0.5, 0.95)))
    return f"{median:.2f} ({high:.2f})"


def main(args: Sequence[str] | None = None) -> int:
    return run("logit_lens", Options, logit_lens, args)


if __name__ == "__main__":
    sys.exit(main())
