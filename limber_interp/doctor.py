"""Whether a config can run here: versions, device, memory, disk, and which weights are in their place."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from limber_interp import published
from limber_interp.cli import ModelOptions, Report, run
from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.records import Record, installed_versions
from limber_interp.resources import resolve

if TYPE_CHECKING:
    import torch

GIB = 2**30
FLOAT32 = 4  # bytes; the encoder and the projection compute in it, and the hub keeps the encoders so


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Whether a config can run here: versions, device, memory, disk, and which weights are in their place.

    Exit status 0 when it can, 1 when something is missing or does not fit.
    """


@dataclass(frozen=True)
class Weights(Record):
    """One part of a model and where its weights are.

    Attributes:
        state: `here`; `hub` for what a library fetches by itself on first use; `missing` or `broken`.
        note: what was found, or what to put where.
        memory: GiB that it takes when loaded; None where that cannot be said before it is here.
        download: GiB still to be fetched, at least; None where unknown.
    """

    part: str
    path: str
    state: Literal["here", "hub", "missing", "broken"]
    note: str
    memory: float | None = None
    download: float | None = 0.0


@dataclass(frozen=True)
class Diagnosis(Record):
    """What `doctor` found. Memory and disk in GiB: free on the device and in the cache of downloads, and needed.

    Attributes:
        needed_memory: of the weights that are known, and of the float32 copy of the token embeddings that a probe makes
            where the language model is in half precision. Images and activations come on top, about 1 GiB.
        fits: what is needed is free.
    """

    config: str
    python: str
    versions: dict[str, str]
    device: str
    free_memory: float
    needed_memory: float
    free_disk: float
    needed_disk: float
    weights: tuple[Weights, ...]
    fits: bool
    can_run: bool

    def as_dict(self) -> dict:
        return {"command": "doctor", **super().as_dict()}


def doctor(options: Options) -> Report:
    from limber_interp.devices import choose_device

    config = options.load_config()
    device = choose_device(options.device)
    described, free_memory = _device(device)
    lm, copies = _language_model(config.lm_name, options.dtype, device)
    weights = (lm, _encoder(config), _projection(config))
    needed_memory = copies + math.fsum(part.memory or 0 for part in weights)
    needed_disk, free_disk = math.fsum(part.download or 0 for part in weights), _free_disk()
    fits = needed_memory < free_memory and needed_disk < free_disk
    record = Diagnosis(
        config=config.name,
        python=sys.version.partition(" ")[0],
        versions=installed_versions(),
        device=described,
        free_memory=round(free_memory, 2),
        needed_memory=round(needed_memory, 2),
        free_disk=round(free_disk, 2),
        needed_disk=round(needed_disk, 2),
        weights=weights,
        fits=fits,
        can_run=fits and all(part.state in ("here", "hub") for part in weights),
    )
    return Report(record, _tables(record), status=0 if record.can_run else 1)


def _device(device: "torch.device") -> tuple[str, float]:
    """The device by its name, and its free memory in GiB."""
    import psutil
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})", torch.cuda.mem_get_info(device)[0] / GIB
    return f"{device} ({torch.get_num_threads()} threads)", psutil.virtual_memory().available / GIB


def _free_disk() -> float:
    """GiB where the Hugging Face libraries put what they download."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE).absolute()
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free / GIB


def _language_model(name: str, dtype: str, device: "torch.device") -> tuple[Weights, float]:
    """Its weights, and the GiB of the copy of its embeddings that a probe works on."""
    from limber_interp.models.hooked_gptj import choose_dtype, gptj_6b_on_the_hub

    found = _look("language model", name)
    if found.state == "missing" and (cached := _in_hub_cache(name)):
        found = _look("language model", str(cached))
    if found.state == "here":
        tensors: Mapping[str, torch.Tensor] = _tensors(Path(found.path))
        download = 0.0
    elif (hub := gptj_6b_on_the_hub(name)) is not None:
        tensors, download = hub, sum(tensor.nbytes for tensor in hub.values()) / GIB
        note = "fetched on first use; needs a network, or give a folder with --lm"
        found = Weights("language model", name, "hub", note)
    elif found.state == "missing" and _is_hub_id(name):
        return Weights("language model", name, "hub", "fetched on first use; needs a network", download=None), 0.0
    else:
        return found, 0.0
    try:
        chosen = choose_dtype(dtype, device, tensors)
    except KeyError:
        return replace(found, state="broken", note=f"{found.path}: no GPT-J, it has no transformer.wte.weight"), 0.0
    memory = sum(tensor.numel() for tensor in tensors.values()) * chosen.itemsize / GIB
    copies = 0.0 if chosen.itemsize == FLOAT32 else tensors["transformer.wte.weight"].numel() * FLOAT32 / GIB
    note = f"{found.note}; in {str(chosen).removeprefix('torch.')}"
    return replace(found, note=note, memory=memory, download=download), copies


def _encoder(config: LimberConfig) -> Weights:
    from limber_interp.models.encoders import blank_encoder

    name = config.encoder_name
    if config.encoder_weights is not None and config.pretrained_img_encoder:
        found = _look("encoder", config.encoder_weights)
    elif config.pretrained_img_encoder:
        found = Weights("encoder", name, "hub", "fetched by its library on first use, or in its cache")
    else:
        found = Weights("encoder", name, "here", f"random, drawn from seed {config.seed}")
    if found.state in ("missing", "broken"):
        return found
    try:
        numbers = sum(parameter.numel() for parameter in blank_encoder(config).parameters())
    except InputError as error:
        return replace(found, state="broken", note=str(error))
    size = FLOAT32 * numbers / GIB
    return replace(found, memory=size, download=size if found.state == "hub" else 0.0)


def _projection(config: LimberConfig) -> Weights:
    if config.projection == "none":
        return Weights("projection", "none", "here", f"untrained, drawn from seed {config.seed}")
    found = _look("projection", config.projection)
    if found.state == "missing" and config.name in published.BLOB_IDS:
        fetch = f"python -m limber_interp.fetch {config.name}"
        return replace(found, note=f"`{fetch}` gets it; or {found.note}")
    if found.state != "here":
        return found
    return replace(found, memory=FLOAT32 * sum(t.numel() for t in _tensors(Path(found.path)).values()) / GIB)


def _look(part: str, path: str | None) -> Weights:
    if path is None:
        return Weights(part, "", "missing", "the config names none: give one by its option, or train it")
    place = resolve(path)
    if not place.exists():
        return Weights(part, path, "missing", f"put it at {place.absolute()}, or name another place")
    try:
        tensors = _tensors(place)
    except InputError as error:
        return Weights(part, path, "broken", str(error))
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return Weights(part, str(place), "here", f"{len(tensors)} tensors, {numbers / 1e6:.1f} M numbers")


def _tensors(place: Path) -> Mapping[str, "torch.Tensor"]:
    from limber_interp.weights import read_tensors

    return read_tensors(place)  # memory-mapped: this reads the headers


def _in_hub_cache(name: str) -> Path | None:
    """The folder of a language model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    id, _, revision = name.partition("@")
    if not _is_hub_id(id):
        return None
    config = try_to_load_from_cache(id, "config.json", revision=revision or None)
    return Path(config).parent if isinstance(config, str) else None


def _is_hub_id(name: str) -> bool:
    owner, _, model = name.partition("/")
    return bool(owner and model) and "/" not in model and owner not in (".", "..", "limber_weights")


def _tables(record: Diagnosis) -> tuple[Table, Table]:
    machine = Table(title=f"limber_interp {record.versions['limber_interp']}", show_header=False)
    machine.add_row("device", record.device)
    machine.add_row("memory", f"{record.needed_memory:.1f} GiB needed, {record.free_memory:.1f} GiB free")
    machine.add_row("disk", f"{record.needed_disk:.1f} GiB to fetch, {record.free_disk:.1f} GiB free")
    machine.add_row("python", record.python)
    for library, version in record.versions.items():
        machine.add_row(library, version)
    verdict = "can run" if record.can_run else "cannot run" if record.fits else "does not fit"
    parts = Table("part", "state", title=f"{record.config}: {verdict}")
    for heading in ("memory, GiB", "to fetch, GiB"):
        parts.add_column(heading, justify="right")
    for heading in ("where", "note"):
        parts.add_column(heading, overflow="fold")
    for part in record.weights:
        sizes = ("?" if size is None else f"{size:.2f}" for size in (part.memory, part.download))
        parts.add_row(part.part, part.state, *sizes, part.path, part.note)
    return machine, parts


def main(args: Sequence[str] | None = None) -> int:
    return run("doctor", Options, doctor, args)


if __name__ == "__main__":
    sys.exit(main())
