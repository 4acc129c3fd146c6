"""Reading weight files: memory-mapped, never running code, and every defect said in one line."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from limber_interp.errors import InputError
from limber_interp.torchscript import is_torchscript, read_torchscript

INDEX = ".index.json"  # of shards
# In the order of preference: safetensors before pickles, one file before shards. The repositories of the hub that keep
# OpenAI's CLIPs for open_clip have the image tower under timm's names beside them, in a `model.safetensors`
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors: one, or all shards that its index names.

    Raises:
        InputError: no such folder, no weights in it, or a shard is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; put the model's files there, or name another folder")
    for name in WEIGHT_FILES:
        if not (folder / name).is_file():
            continue
        if not name.endswith(INDEX):
            return [folder / name]
        shards = sorted({folder / shard for shard in read_json(folder / name).get("weight_map", {}).values()})
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise InputError(f"{folder}: {name} names {', '.join(missing)}, which is not there; fetch it again")
        return shards
    raise InputError(f"{folder}: no weights; expected one of {', '.join(sorted(WEIGHT_FILES))}")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as views of the memory-mapped file: pages are read when they are used.

    Args:
        path: a `.safetensors` file, a `torch.save` of a state dict (loaded with `weights_only=True`), a TorchScript
            archive (its code is left alone), or a folder of the Hugging Face kind with one of these, possibly sharded.

    Raises:
        InputError: nothing there, truncated, a pickle that would run code, or not a mapping from names to tensors.
    """
    path = Path(path)
    files = [path] if path.is_file() else weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            tensors |= _read_safetensors(file)
        elif is_torchscript(file):
            tensors |= read_torchscript(file)
        else:
            tensors |= _read_pickle(file)
    return tensors


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors into a module of the same names and shapes.

    Raises:
        InputError: a tensor is missing, unknown, or of the wrong shape.
    """
    check_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, source)
    module.load_state_dict(dict(tensors))


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: str | Path) -> None:
    """Raise an InputError that names the first tensor that is missing, unknown, or of another shape than expected."""
    for name, shape in expected.items():
        if name not in tensors:
            raise InputError(f"{source}: tensor {name!r} is missing, expected with shape {shape}")
        if (found := tuple(tensors[name].shape)) != shape:
            raise InputError(f"{source}: tensor {name!r}: found shape {found}, expected {shape}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{source}: tensor {unknown[0]!r} belongs to another architecture; expected none of that name")


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes in the order of the names: the same however they were sharded."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_json(path: Path) -> dict:
    """A JSON file that holds an object.

    Raises:
        InputError: it is missing or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: truncated or not a safetensors file; fetch it again: {error}") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file}: not a file of plain tensors, and nothing in it was run: {reason}") from error
    if not (isinstance(values, dict) and all(isinstance(value, Tensor) for value in values.values())):
        raise InputError(f"{file}: expected a state dict (names to tensors), found {type(values).__name__}")
    return values


def _is_zip(file: Path) -> bool:
    """The format of torch >= 1.6, the only one that can be memory-mapped."""
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"
