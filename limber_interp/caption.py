"""What the language model says about an image, beside what it says without one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from limber_interp.cli import CommonOptions, Report, noting_skipped, progress, run
from limber_interp.options import SHARE, TEMPERATURE, at_least
from limber_interp.records import Captions
from limber_interp.text import printable

if TYPE_CHECKING:
    from limber_interp.models.limber import Outline


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """What the language model says about an image, beside what it says without one."""

    prompt: str = "A picture of"
    """Text after the image, which the caption continues."""
    max_new_tokens: Annotated[int, at_least(1)] = 20
    """Stop after so many, if there was no end of text before."""
    temperature: Annotated[float, TEMPERATURE] = 0.0
    """0: the most probable token each time (greedy)."""
    top_k: Annotated[int | None, tyro.conf.arg(metavar="INT"), at_least(1)] = None
    """Sample from the k most probable tokens."""
    top_p: Annotated[float | None, tyro.conf.arg(metavar="FLOAT"), SHARE] = None
    """Sample from the smallest set of tokens with this mass (LIMBER's default of 0.9 equals 0.1 here)."""
    n_samples: Annotated[int | None, tyro.conf.arg(metavar="INT"), at_least(1)] = None
    """Draw so many captions of each image, each with its scores; it needs a temperature above 0."""

    def check_with(self, outline: "Outline") -> None:
        from limber_interp.models.generation import check_sampling
        from limber_interp.models.limber import check_samples

        check_samples(self.n_samples, self.temperature)
        check_sampling(self.temperature, self.top_k, self.top_p, outline.vocabulary.n_used)
        outline.layout(self.prompt, self.max_new_tokens)


def caption(options: Options) -> Report:
    sources, skipped = options.opened()
    model = options.load_model()
    from limber_interp.evaluation.captions import captions

    record = captions(
        model,
        sources,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=model.config.seed,
        n_samples=options.n_samples,
        progress=lambda batches: progress(batches, "Captioning"),
    )
    record = noting_skipped(record, skipped)
    if options.figure is not None:
        from limber_interp.plotting.captions import figure

        figure(record, options.figure)

    return Report(record, (_table(record),), skipped=skipped)


def _table(record: Captions) -> Table:
    several = bool(record.samples_no_image)
    table = Table(
        title=f"Captions after {record.prompt!r}",
        caption="nats per token of the caption: with the image, without it, and with noise of its norms in its place",
    )
    for heading in ("image", *(("sample",) if several else ()), "caption"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "sample" else "left")
    for heading in ("with", "without", "noise"):
        table.add_column(heading, justify="right")
    for item in record.images:
        for number, drawn in enumerate(item.drawn, 1):
            scores = (f"{score:.2f}" for score in (drawn.logprob, drawn.logprob_no_image, drawn.logprob_noise))
            # The name on each row, so that rows can be told apart by tools that read lines
            table.add_row(
                printable(item.image), *((str(number),) if several else ()), printable(drawn.caption), *scores
            )
    for number, blind in enumerate(record.samples_no_image or (record.caption_no_image,), 1):
        table.add_row("(no image)", *((str(number),) if several else ()), printable(blind), "", "", "")
    return table


def main(args: Sequence[str] | None = None) -> int:
    return run("caption", Options, caption, args)


if __name__ == "__main__":
    sys.exit(main())
