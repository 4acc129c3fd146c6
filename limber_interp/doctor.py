"""Whether a config can run here: versions, device, memory, and which weights are in their place."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from limber_interp.cli import ModelOptions, Report, run
from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.records import Record, installed_versions
from limber_interp.resources import resolve


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Whether a config can run here: versions, device, memory, and which weights are in their place.

    Exit status 0 when it can, 1 when something is missing.
    """


@dataclass(frozen=True)
class Weights(Record):
    """One part of a model and where its weights are.

    Attributes:
        state: `here`; `hub` for what a library fetches by itself on first use, or has fetched; `missing` or `broken`.
        note: what was found, or what to put where.
    """

    part: str
    path: str
    state: Literal["here", "hub", "missing", "broken"]
    note: str


@dataclass(frozen=True)
class Diagnosis(Record):
    """What `doctor` found. Memory in GiB."""

    config: str
    python: str
    versions: dict[str, str]
    device: str
    free_memory: float
    weights: tuple[Weights, ...]
    can_run: bool

    def as_dict(self) -> dict:
        return {"command": "doctor", **super().as_dict()}


def doctor(options: Options) -> Report:
    config = options.load_config()
    device, free_memory = _device(options.device)
    weights = (
        _look("language model", config.lm_name, hub=config.lm_name),
        _encoder(config),
        _projection(config),
    )
    record = Diagnosis(
        config=config.name,
        python=sys.version.partition(" ")[0],
        versions=installed_versions(),
        device=device,
        free_memory=round(free_memory, 2),
        weights=weights,
        can_run=all(part.state in ("here", "hub") for part in weights),
    )
    return Report(record, _tables(record), status=0 if record.can_run else 1)


def _device(name: str) -> tuple[str, float]:
    """The device that would be used, by name, and its free memory in GiB."""
    import psutil
    import torch

    from limber_interp.devices import choose_device

    device = choose_device(name)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})", torch.cuda.mem_get_info(device)[0] / 2**30
    return f"{device} ({torch.get_num_threads()} threads)", psutil.virtual_memory().available / 2**30


def _encoder(config: LimberConfig) -> Weights:
    if config.encoder_weights is None and not config.pretrained_img_encoder:
        return Weights("encoder", config.encoder_name, "here", f"random, drawn from seed {config.seed}")
    if config.encoder_weights is None:
        return Weights("encoder", config.encoder_name, "hub", "fetched by its library on first use")
    return _look("encoder", config.encoder_weights, hub=None)


def _projection(config: LimberConfig) -> Weights:
    if config.projection == "none":
        return Weights("projection", "none", "here", f"untrained, drawn from seed {config.seed}")
    return _look("projection", config.projection, hub=None)


def _look(part: str, path: str | None, hub: str | None) -> Weights:
    if path is None:
        return Weights(part, "", "missing", "the config names none: give one by its option, or train it")
    place = resolve(path)
    if place.exists():
        from limber_interp.weights import read_tensors

        try:
            tensors = read_tensors(place)  # memory-mapped: this reads the headers
        except InputError as error:
            return Weights(part, path, "broken", str(error))
        parameters = sum(tensor.numel() for tensor in tensors.values())
        return Weights(part, str(place), "here", f"{len(tensors)} tensors, {parameters / 1e6:.1f} M numbers")
    if hub is not None and _is_hub_id(hub):
        from huggingface_hub import try_to_load_from_cache

        cached = isinstance(try_to_load_from_cache(hub, "config.json"), str)
        return Weights(part, hub, "hub", "in the local cache" if cached else "fetched on first use; needs a network")
    return Weights(part, path, "missing", f"put it at {Path(place).absolute()}, or name another place")


def _is_hub_id(name: str) -> bool:
    owner, _, model = name.partition("/")
    return bool(owner and model) and "/" not in model and owner not in (".", "..", "limber_weights")


def _tables(record: Diagnosis) -> tuple[Table, Table]:
    machine = Table(title=f"limber_interp {record.versions['limber_interp']}", show_header=False)
    machine.add_row("device", record.device)
    machine.add_row("free memory", f"{record.free_memory:.1f} GiB")
    machine.add_row("python", record.python)
    for library, version in record.versions.items():
        machine.add_row(library, version)
    verdict = "can run" if record.can_run else "cannot run"
    parts = Table("part", "state", "where", "note", title=f"{record.config}: {verdict}")
    for weights in record.weights:
        parts.add_row(weights.part, weights.state, weights.path, weights.note)
    return machine, parts


def main(args: Sequence[str] | None = None) -> int:
    return run("doctor", Options, doctor, args)


if __name__ == "__main__":
    sys.exit(main())
