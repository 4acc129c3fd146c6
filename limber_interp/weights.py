"""Reading weight files: memory-mapped, never running code, and every defect said in one line."""

import contextlib
import hashlib
import json
import logging
import pickletools
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from limber_interp.errors import InputError, reading
from limber_interp.torchscript import is_torchscript, read_torchscript

logger = logging.getLogger(__name__)

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

# Under which a training script keeps the weights beside its optimizer and the like
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
# What DataParallel, DistributedDataParallel and torch.compile put before every name
PREFIXES = ("module.", "_orig_mod.")
# A BatchNorm's count of training batches: files from before torch 0.4.1 lack it, and nothing here reads it
COUNTER = "num_batches_tracked"
NO_TENSORS = "not a file of plain tensors, and nothing in it was run"
LONGEST_NAME = 1000  # characters of what a pickle asks for; those of torch have thirty
LEGACY_PICKLES = 5  # of torch before 1.6: a mark, its version, the machine, the object, names of the storages


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
        shards = sorted(folder / shard for shard in _shards(folder / name))
        with reading(folder / name, "names files that cannot be"):
            missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise InputError(f"{folder}: {name} names {', '.join(missing)}, which is not there; fetch it again")
        return shards
    raise InputError(f"{folder}: no weights; expected one of {', '.join(sorted(WEIGHT_FILES))}")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as views of the memory-mapped file: pages are read when they are used.

    Where a training script put the state dict under a name beside other things (`{"state_dict": …, "epoch": 3}`), it is
    taken out; a `module.` that DataParallel put before all names is left away. Both are logged.

    Args:
        path: a `.safetensors` file, a `torch.save` of a state dict (loaded with `weights_only=True`), a TorchScript
            archive (its code is left alone), or a folder of the Hugging Face kind with one of these, possibly sharded.

    Raises:
        InputError: nothing there, truncated, a pickle that would run code, or not a mapping from names to tensors of
            real numbers that the file holds.
    """
    path = Path(path)
    files = [path] if path.is_file() else weight_files(path)
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _read(file)
        _check_plain(found, file)
        for name in tensors.keys() & found.keys():
            if not torch.equal(tensors[name], found[name]):
                raise InputError(f"{file}: tensor {name!r} is in another shard too, and differs; fetch them again")
        tensors |= found
    return _without_prefix(tensors, path)


def _read(file: Path) -> dict[Any, Any]:
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if is_torchscript(file):
        return read_torchscript(file)
    return _read_pickle(file)


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors into a module of the same names and shapes; counts of a BatchNorm's batches may be missing.

    Raises:
        InputError: a tensor is missing, unknown, of the wrong shape, or of whole numbers where the module has others.
    """
    own = module.state_dict()
    counters = {name: tensor for name, tensor in own.items() if name.endswith(COUNTER) and name not in tensors}
    tensors = {**tensors, **counters}
    check_shapes(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()}, source)
    check_floats({name: tensor for name, tensor in tensors.items() if own[name].is_floating_point()}, source)
    module.load_state_dict(tensors)


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: str | Path) -> None:
    """Raise an InputError that names the first tensor that is missing, unknown, or of another shape than expected."""
    for name, shape in expected.items():
        if name not in tensors:
            raise InputError(f"{source}: tensor {name!r} is missing, expected with shape {shape}")
        if (found := tuple(tensors[name].shape)) != shape:
            raise InputError(f"{source}: tensor {name!r}: found shape {found}, expected {shape}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{source}: tensor {unknown[0]!r} belongs to another architecture; expected none of that name")


def check_floats(tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Raise an InputError that names the first tensor that does not hold floating-point numbers."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            found = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{source}: tensor {name!r}: found {found}, expected floats; quantised weights do not fit")


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
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with reading(path, "cannot be read as JSON"):
        values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _shards(index: Path) -> set[str]:
    """The files that an index names, each of which has to lie beside it."""
    names = read_json(index).get("weight_map")
    files = list(names.values()) if isinstance(names, dict) else []
    if not files or not all(isinstance(file, str) for file in files):
        raise InputError(f"{index}: no weight_map from tensors to files in it; fetch it again")
    for file in files:
        if file in ("", "..") or Path(file).name != file or "\0" in file:
            raise InputError(f"{index}: names the file {file[:100]!r}; expected one beside it")
    return set(files)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with (
        reading(file, "truncated or not a safetensors file; fetch it again"),
        safe_open(file, framework="pt") as stored,
    ):
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)


def _read_pickle(file: Path) -> dict[Any, Any]:
    with reading(file, NO_TENSORS):
        zipped = _is_zip(file)
        if zipped:
            _check_stored(file)
        _check_names(file, zipped)
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    tensors = _unwrapped(values, file)
    if zipped:
        _check_records(tensors, file)
    return tensors


def _is_zip(file: Path) -> bool:
    """The format of torch >= 1.6, the only one that can be memory-mapped."""
    with file.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _check_stored(file: Path) -> None:
    """Refuse an archive that was packed again: memory-mapped, its compressed records would be taken for numbers."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{file}: its record {info.filename} is compressed, as torch writes none; unpack it")


def _check_records(tensors: Mapping[Any, Any], file: Path) -> None:
    """Refuse an archive whose records are not as long as its pickle says: memory-mapped, torch takes what lies behind
    them for numbers.
    """
    with zipfile.ZipFile(file) as archive:
        records = Counter(info.file_size for info in archive.infolist() if "/data/" in info.filename)
    storages = {
        tensor.data_ptr() - tensor.storage_offset() * tensor.element_size(): tensor.untyped_storage().nbytes()
        for tensor in tensors.values()
        if tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.numel()
    }
    if lacking := Counter(storages.values()) - records:
        raise InputError(f"{file}: broken: no record of it has the {min(lacking):,} bytes of a tensor; fetch it again")


def _check_names(file: Path, zipped: bool) -> None:
    """Refuse a pickle that asks for something by an endless name.

    torch refuses it too, and searches its own message, which quotes the name, by a pattern that takes the square of its
    length: minutes for a hundred kilobytes.
    """
    with contextlib.ExitStack() as stack:
        if zipped:
            archive = stack.enter_context(zipfile.ZipFile(file))
            pickled = [name for name in archive.namelist() if name.endswith("data.pkl")]
            streams = [stack.enter_context(archive.open(name)) for name in pickled]
        else:  # the older format: a few pickles one after the other, and then the numbers
            streams = [stack.enter_context(file.open("rb"))] * LEGACY_PICKLES
        for stream in streams:
            try:
                for code, name, _ in pickletools.genops(stream):
                    if code.name == "GLOBAL" and len(str(name)) > LONGEST_NAME:
                        raise InputError(f"{file}: {NO_TENSORS}: it asks for a name of {len(str(name)):,} characters")
            except InputError:
                raise
            except Exception as error:  # no pickle, or a broken one: torch says what is wrong with it
                if "no newline found" in str(error):  # where a name should have ended
                    raise InputError(f"{file}: {NO_TENSORS}: it asks for a name that does not end") from error
                return


def _unwrapped(values: Any, file: Path) -> dict[Any, Any]:
    """The state dict that a training script put beside other things."""
    while isinstance(values, dict) and not all(isinstance(value, Tensor) for value in values.values()):
        inside = [key for key in WRAPPERS if isinstance(values.get(key), dict)]
        if len(inside) != 1:
            break
        beside = ", ".join(sorted(str(key) for key in values.keys() - set(inside))) or "nothing"
        logger.info("%s: weights taken from %r in it; beside it, and left alone: %s", file, inside[0], beside)
        values = values[inside[0]]
    if not (isinstance(values, dict) and all(isinstance(value, Tensor) for value in values.values())):
        raise InputError(
            f"{file}: expected a state dict (names to tensors, perhaps under {', '.join(map(repr, WRAPPERS))}), "
            f"found {type(values).__name__}"
        )
    return values


def _check_plain(tensors: Mapping[Any, Any], file: Path) -> None:
    """Refuse what is no name with a tensor of real numbers in memory of its own, or asks for more than the file has."""
    size = file.stat().st_size
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise InputError(f"{file}: expected names of tensors, found {type(name).__name__}")
        if not (isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"):
            raise InputError(f"{file}: tensor {name!r} is no plain one (sparse, or without numbers)")
        if tensor.is_quantized or tensor.is_complex():
            raise InputError(f"{file}: tensor {name!r}: found {tensor.dtype}, expected real numbers, not quantised")
        if tensor.numel() * tensor.element_size() > size:  # strides of 0 make any size out of one number
            raise InputError(f"{file}: tensor {name!r}: shape {tuple(tensor.shape)} is more than the file holds")


def _without_prefix(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors without what DataParallel and the like put before every name."""
    while prefix := next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        logger.info("%s: %r before the name of every tensor left away", path, prefix)
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
