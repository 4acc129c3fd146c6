"""Compute a frozen encoder's outputs for a data set once, and keep them as shards."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from limber_interp.cli import EncoderOptions, Report, progress, run, share_of
from limber_interp.errors import InputError
from limber_interp.options import PLACE, READ, at_least
from limber_interp.overwriting import NamedPath
from limber_interp.records import Record

SHARD = re.compile(r"\d{5}\.(jsonl|safetensors)|rejected\.jsonl")  # as encodings.writing names its files


@dataclass(frozen=True, kw_only=True)
class Options(EncoderOptions):
    """Compute a frozen encoder's outputs for a data set once, and keep them as shards.

    The language model is not needed. Run again, it goes on after the last whole shard.
    """

    data: Annotated[str, tyro.conf.arg(metavar="PATH"), READ]
    """Captioned images: LIMBER's folder, COCO captions .json, .tar shards (one, a folder, a pattern), .csv or .tsv."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER"), PLACE]
    """Where the shards go."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """Of COCO captions and tables, where the images are not beside them."""
    shard_size: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(1)] = 512
    """Images in a shard; one is held in memory."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(1)] = 64
    """Images that are encoded at once."""
    max_rejected: Annotated[str, tyro.conf.arg(metavar="SHARE")] = "1%"
    """Stop where more of the data than this cannot be used; what is left out is listed in FOLDER/rejected.jsonl."""

    def outputs(self) -> Iterator[NamedPath]:
        yield from super().outputs()
        yield NamedPath("--out", self.out)  # a folder of its own
        for name in ("manifest.json", "rejected.jsonl"):
            yield NamedPath("--out", self.out / name)

    def check_outputs(self) -> None:
        super().check_outputs()
        share_of("--max-rejected", self.max_rejected)
        if not (self.out / "manifest.json").exists():  # of encodings, which is written before all shards
            for path in sorted(self.out.glob("*")):
                if SHARD.fullmatch(path.name):
                    raise InputError(
                        f"{path}: is there, and no manifest.json of encodings beside it; name another --out"
                    )


@dataclass(frozen=True)
class Encoded(Record):
    """What `encode` wrote, or found there.

    Attributes:
        kept, rejected: images with an encoding, and without.
        shape: of an encoding.
        gigabytes: size of the encodings, in 10^9 bytes.
        manifest: the shards' own: encoder, its hash and preprocessing, source.
    """

    out: str
    kept: int
    rejected: int
    shape: tuple[int, int]
    gigabytes: float
    manifest: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {"command": "encode", **super().as_dict()}


def encode(options: Options) -> Report:
    max_rejected = share_of("--max-rejected", options.max_rejected)
    config = options.load_config()
    from limber_interp.datasets import open_dataset
    from limber_interp.devices import choose_device
    from limber_interp.encodings import encode as encode_dataset
    from limber_interp.models.encoders import load_encoder

    dataset = open_dataset(options.data, options.images)
    encoder = load_encoder(config, choose_device(options.device))
    found = encode_dataset(
        encoder, dataset, options.out, options.shard_size, options.batch_size, max_rejected, progress=progress
    )
    kept, shape = int(found.kept.sum()), (found.n_positions, found.d_encoder)
    record = Encoded(
        str(options.out), kept, len(found.rejected), shape, 2e-9 * kept * shape[0] * shape[1], found.manifest
    )
    table = Table(title=f"{config.name}: encodings of {dataset.name}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("folder", record.out)
    table.add_row("images", f"{kept} ({record.rejected} rejected)")
    table.add_row("each", f"{shape[0]} positions x {shape[1]}, float16")
    table.add_row("size", f"{record.gigabytes:.3f} GB")
    return Report(record, (table,))


def main(args: Sequence[str] | None = None) -> int:
    return run("encode", Options, encode, args)


if __name__ == "__main__":
    sys.exit(main())
