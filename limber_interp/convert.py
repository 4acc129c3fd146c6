"""Convert LIMBER's checkpoint of a projection to safetensors with a manifest."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from limber_interp.cli import OutputOptions, Report, parts_of, run
from limber_interp.config import LimberConfig, load_config
from limber_interp.errors import InputError
from limber_interp.options import PLACE, READ
from limber_interp.overwriting import NamedPath
from limber_interp.records import Record, installed_versions, make_folder
from limber_interp.resources import resolve

# No hash of either can be had from the file, so the projection stays unverified
NOTE = "converted from a checkpoint that does not say which encoder and language model it was trained with"


@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Convert LIMBER's checkpoint of a projection to safetensors with a manifest.

    Neither the encoder's weights nor the language model are needed.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CKPT"), READ]
    """A torch.save of the state dict of an nn.Linear; loaded without running code."""
    config: Annotated[str, tyro.conf.arg(metavar="NAME|PATH"), READ]
    """The config that it was trained with: a name in configs/, or a YAML file, LIMBER's own included."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER"), PLACE]
    """Where <config>.safetensors goes; a file there is not replaced."""

    def target(self, config: LimberConfig) -> Path:
        return self.out / f"{config.name}.safetensors"

    def inputs(self) -> Iterator[NamedPath]:
        yield from super().inputs()
        yield from parts_of(load_config(self.config))

    def outputs(self) -> Iterator[NamedPath]:
        yield from super().outputs()
        yield NamedPath("--out", self.target(load_config(self.config)))


@dataclass(frozen=True)
class Conversion(Record):
    """What `convert` wrote.

    Attributes:
        sha256: of the tensors, as in the manifests of results.
        source: name, sha256 and git blob id of the checkpoint, and the config that LIMBER published it for, if it did.
    """

    config: str
    path: str
    d_encoder: int
    d_model: int
    n_tokens: int
    sha256: str
    source: dict[str, str | None]
    note: str

    def as_dict(self) -> dict:
        return {"command": "convert", **super().as_dict()}


def convert(options: Options) -> Report:
    config = load_config(options.config)
    target = options.target(config)
    if target.exists():
        raise InputError(f"{target}: is there already; move it away, or name another folder with --out")
    if not options.checkpoint.is_file() or options.checkpoint.suffix == ".safetensors":
        raise InputError(f"{options.checkpoint}: not a checkpoint to convert; limber_interp.fetch gets LIMBER's")
    from limber_interp.models.encoders import blank_encoder
    from limber_interp.models.limber import n_tokens
    from limber_interp.models.projection import load_projection

    if config.encoder_weights is not None and not resolve(config.encoder_weights).exists():
        config = config.model_copy(update={"encoder_weights": None})
    encoder = blank_encoder(config)
    rows = n_tokens(config, encoder)
    d_model = _d_model(config, options.checkpoint, rows)
    projection = load_projection(options.checkpoint, encoder.d_encoder, d_model, rows)
    projection.check_published(config.name, options.checkpoint)

    manifest: dict[str, Any] = {
        **(projection.manifest or {}),  # its source
        "config": config.model_dump(),
        "hashes": {"encoder": None, "lm": None},
        "notes": [NOTE],
        "versions": installed_versions(),
    }
    make_folder(options.out)
    projection.save(target, manifest, encoder.n_positions)
    record = Conversion(
        config.name, str(target), encoder.d_encoder, d_model, rows, projection.sha256, manifest["source"], NOTE
    )
    table = Table(title=f"{config.name}: converted", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("projection", record.path)
    table.add_row("shape", f"{encoder.d_encoder} to {rows} x {d_model}")
    table.add_row("sha256", record.sha256)
    for key, value in record.source.items():
        table.add_row(f"source: {key}", value or "no")
    table.add_row("note", NOTE)
    return Report(record, (table,))


def _d_model(config: LimberConfig, checkpoint: Path, n_tokens: int) -> int:
    """Of the language model, if its folder is here; otherwise what the checkpoint's own bias leaves for each row."""
    from limber_interp.weights import read_json, read_tensors

    described = resolve(config.lm_name) / "config.json"
    if described.is_file() and "n_embd" in (values := read_json(described)):
        return values["n_embd"]
    bias = read_tensors(checkpoint).get("bias")
    if bias is None or bias.ndim != 1 or len(bias) % n_tokens:
        found = "none" if bias is None else f"shape {tuple(bias.shape)}"
        raise InputError(f"{checkpoint}: tensor 'bias': found {found}, expected {n_tokens} x d_model numbers")
    return len(bias) // n_tokens


def main(args: Sequence[str] | None = None) -> int:
    return run("convert", Options, convert, args)


if __name__ == "__main__":
    sys.exit(main())
