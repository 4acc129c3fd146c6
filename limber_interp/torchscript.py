"""The tensors in a TorchScript archive, such as OpenAI's CLIPs, without the program that it also holds."""

# `torch.load(weights_only=True)` refuses these archives. `torch.jit.load` compiles their code and runs some of it
# (`__setstate__`, which may write files); its documentation warns of untrusted files, and it is deprecated. The pickle
# inside says which tensor is where: it alone is read, by an unpickler that knows tensors and empty modules and refuses
# all else.

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limber_interp.errors import InputError, reading

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that keeps constants for its code."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _root(archive) + "constants.pkl" in archive.namelist()
    except Exception:  # no zip, or a broken one: whoever reads it next says so
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """Tensors by name (`visual.conv1.weight`), on the CPU, as private views of the memory-mapped file.

    These are the parameters and buffers of the module, and whatever tensors it has as plain attributes.

    Raises:
        InputError: truncated, or its pickle asks for more than tensors and modules.
    """
    with reading(file, "broken TorchScript archive, and nothing in it was run"):
        try:
            with zipfile.ZipFile(file) as archive:
                pickled = archive.read(_stored(archive, _root(archive) + "data.pkl"))
                _check_memory(pickled)
                module = _Unpickler(io.BytesIO(pickled), file, archive).load()
        except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise InputError(f"{file}: not an archive of plain tensors, and nothing in it was run: {error}") from error
        if not isinstance(module, _Module):
            raise InputError(f"{file}: expected a TorchScript module, found {type(module).__name__}")
        return dict(_named_tensors(module))


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A record as torch writes them, which is as long as it says."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"its record {name} is compressed, as torch writes none")
    return info


def _check_memory(pickled: bytes) -> None:
    """Refuse places for what is remembered that lie beyond the pickle's own length: Python makes room up to there."""
    for code, place, _ in pickletools.genops(pickled):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and place > len(pickled):  # type: ignore[operator]
            raise pickle.UnpicklingError(f"it remembers something at place {place:,}, and has {len(pickled):,} bytes")


class _Module:
    """Stands for every class of the archive: it takes attributes, and can do nothing."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, file: Path, archive: zipfile.ZipFile) -> None:
        super().__init__(stream)
        self.file, self.archive = file, archive
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return type(name, (_Module,), {})  # a new one each time: a pickle may set attributes of a class, too
        match module, name:
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch.jit._pickle", "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist":
                return list
            case "torch.jit._pickle", "restore_type_tag":
                return _first
            case "torch", storage if storage in STORAGES:
                return STORAGES[storage]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid  # ("storage", type, record's name, device, number of elements)
        if key not in self.storages:
            self.storages[key] = self._record(f"{_root(self.archive)}data/{key}").view(dtype)
        return self.storages[key]

    def _record(self, name: str) -> Tensor:
        info = _stored(self.archive, name)
        with self.file.open("rb") as stream:
            stream.seek(info.header_offset + 26)  # where a zip's local header says how long its name and extras are
            lengths = np.frombuffer(stream.read(4), dtype="<u2")
        start = info.header_offset + 30 + int(lengths.sum())
        return torch.from_numpy(np.memmap(self.file, np.uint8, mode="c", offset=start, shape=(info.file_size,)))


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)  # within the record, or a RuntimeError


def _first(value: Any, *_: Any) -> Any:
    return value


def _root(archive: zipfile.ZipFile) -> str:
    """All records lie in one folder, which is named after the file as it was when it was written."""
    return archive.namelist()[0].partition("/")[0] + "/" if archive.namelist() else ""


def _named_tensors(module: _Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _named_tensors(value, f"{prefix}{name}.")
