"""What the language model says about an image, beside what it says without one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.table import Table

from limber_interp.cli import CommonOptions, Report, noting_skipped, progress, run
from limber_interp.options import SHARE, TEMPERATURE, at_least
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

    def check_with(self, outline: "Outline") -> None:
        from limber_interp.models.generation import check_sampling

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
        progress=lambda batches: progress(batches, "Captioning"),
    )
    record = noting_skipped(record, skipped)
    if options.figure is not None:
        from limber_interp.plotting.captions import figure

        figure(record, options.figure)

    table = Table(
        title=f"Captions after {options.prompt!r}",
        caption="nats per token of the caption: with the image, without it, and with noise of its norms in its place",
    )
    for heading in ("image", "caption"):
        table.add_column(heading, overflow="fold")
    for heading in ("with", "without", "noise"):
        table.add_column(heading, justify="right")
    for item in record.images:
        scores = (f"{score:.2f}" for score in (item.logprob, item.logprob_no_image, item.logprob_noise))
        table.add_row(printable(item.image), printable(item.caption), *scores)
    table.add_row("(no image)", printable(record.caption_no_image), "", "", "")
    return Report(record, (table,), skipped=skipped)


def main(args: Sequence[str] | None = None) -> int:
    return run("caption", Options, caption, args)


if __name__ == "__main__":
    sys.exit(main())
