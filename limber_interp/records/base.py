"""What all records share: the disk, JSON, the manifest, and writing files whole or not at all."""

import contextlib
import json
import math
import os
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

import numpy as np
from jaxtyping import jaxtyped
from pydantic import ConfigDict, TypeAdapter, ValidationError

from limber_interp.errors import InputError, reading

R = TypeVar("R", bound="Record")

# The libraries that can change a number; a manifest names the version of each that is installed.
LIBRARIES = ("torch", "transformers", "transformer_lens", "open_clip_torch", "timm", "numpy", "pillow")

# A file that unpacks to more than both, in bytes and in times its own size, was made to fill the memory
BOMB_BYTES, BOMB_RATIO = 2**30, 100


# What figures and pages say of who wrote them, so that a later run can tell them from files that are not its own
WRITER = "written by limber_interp"


def installed_versions() -> dict[str, str]:
    """Versions of this package and of the libraries that can change a result, read without importing them."""
    from limber_interp import __version__

    versions = {"limber_interp": __version__}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions


class Record:
    """Base of all results. A subclass is a frozen dataclass whose fields are numpy arrays (not of objects), plain JSON
    values, other records, and tuples, lists and string-keyed dictionaries of these.
    """

    _classes: ClassVar[dict[str, type["Record"]]] = {}
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        arbitrary_types_allowed=True
    )  # arrays; asked by `load` alone

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Record._classes[cls.__name__] = cls

    def as_dict(self) -> dict[str, Any]:
        """Plain values alone: arrays as nested lists, numbers that are not finite as None (JSON has no name for them).

        A record whose published JSON differs from its fields overrides this.
        """
        assert is_dataclass(self)
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    def to_json(self, indent: int | None = None, ascii: bool = False) -> str:
        """`as_dict()` as JSON text, which every encoding of Unicode can hold.

        Args:
            ascii: write all other characters as `\\u00e9`, so that every encoding can hold it.
        """
        text = json.dumps(_plain(self.as_dict()), indent=indent, ensure_ascii=ascii, allow_nan=False)
        # A file name that is not UTF-8 comes as lone surrogates; `\udcff` is what JSON writes for one
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    def save(self, path: str | Path) -> None:
        """Write the record as `.npz`: its arrays, and all the rest as JSON under the key `record`. Atomic.

        Raises:
            InputError: the path cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(_pack(self, arrays))

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:  # by handle: given a name, numpy would append another ending
                np.savez_compressed(file, allow_pickle=False, record=np.array(text), **arrays)

        write_atomically(path, write)

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read what `save` wrote. `Record.load` takes any kind of record, a subclass only its own.

        Raises:
            InputError: no such file, not a record, a record of another kind, or one whose fields do not hold what they
                should: a type, a shape, or a name that refers to nothing.
        """
        with reading(path, "not a record of limber_interp"):
            arrays = _read_arrays(Path(path))
            record = _unpack(json.loads(str(arrays.pop("record"))), arrays)
        if not isinstance(record, cls):
            raise InputError(f"{path}: holds a {type(record).__name__}, expected a {cls.__name__}")
        return record

    def check(self) -> None:
        """Raise a ValueError if fields do not fit each other, beyond their types and shapes; `load` asks every record.

        A record whose fields refer to each other overrides this.
        """


@dataclass(frozen=True)
class Manifest(Record):
    """What produced a result.

    Attributes:
        config: the config, key by key.
        hashes: sha256 of the `projection`, the `encoder` and the `lm`.
        preprocessing: the encoder's description of what it does to an image.
        images: image as given -> sha256 of its RGB pixels.
        notes: what a reader of the numbers has to know, e.g. that a projection could not be verified.
        others: the same as `images` of further images, which served as control alone.
    """

    config: Mapping[str, Any]
    hashes: Mapping[str, str | None]
    dtype: str
    device: str
    seed: int
    preprocessing: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    others: Mapping[str, str] = field(default_factory=dict)

    def noting(self, lines: Iterable[str]) -> "Manifest":
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *lines))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON can hold exactly; everything else becomes `{"$kind": …}`, and arrays move into `arrays`."""
    if isinstance(value, Record):
        assert is_dataclass(value)
        packed = {f.name: _pack(getattr(value, f.name), arrays) for f in fields(value)}
        return {"$record": type(value).__name__, "fields": packed}
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("a record holds arrays of numbers or strings, not of Python objects")
        arrays[key := f"array_{len(arrays)}"] = value
        return {"$array": key}
    if isinstance(value, tuple):
        return {"$tuple": [_pack(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"$dict": {key: _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, list):
        return [_pack(item, arrays) for item in value]
    return value


def _unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    match value:
        case {"$record": name, "fields": packed}:
            record = Record._classes[name](**{key: _unpack(item, arrays) for key, item in packed.items()})
            _check_types(record)
            record.check()
            return record
        case {"$array": key}:
            return arrays[key]
        case {"$tuple": items}:
            return tuple(_unpack(item, arrays) for item in items)
        case {"$dict": items}:
            return {key: _unpack(item, arrays) for key, item in items.items()}
        case list():
            return [_unpack(item, arrays) for item in value]
    return value


def _check_types(record: Record) -> None:
    """Raise a ValueError if a field holds another type than it is declared with, or a dimension has two sizes."""
    names, types = _field_types(type(record))  # type: ignore[arg-type]
    try:
        with jaxtyped("context"):  # a dimension of one name has one size in the whole record
            types.validate_python(tuple(getattr(record, name) for name in names), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        index, *inside = first["loc"]
        place = ".".join(map(str, (type(record).__name__, names[int(index)], *inside)))
        raise ValueError(f"{place}: {first['msg']}") from error


@cache
def _field_types(cls: type[Record]) -> tuple[tuple[str, ...], TypeAdapter]:
    hints = get_type_hints(cls)
    assert is_dataclass(cls)
    names = tuple(f.name for f in fields(cls))
    types: Any = tuple[tuple(hints[name] for name in names)]  # type: ignore[misc]
    return names, TypeAdapter(types, config=Record.__pydantic_config__)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz, once their sizes are seen to be what the file can hold.

    Both a zip's sizes and an array's shape are numbers in the file that may say anything; numpy would ask for that much
    memory before it finds out.
    """
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size):
            raise ValueError(f"it would unpack to {unpacked / 2**30:.1f} GiB, as no record does")
        for info in archive.infolist():
            with archive.open(info) as member:
                _check_size(member, info)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    for key, array in arrays.items():
        # numpy makes texts of any numbers; those that are no characters break whatever writes them later
        if array.dtype.kind == "U" and array.size and np.atleast_1d(array).view(np.uint32).max() > sys.maxunicode:
            raise ValueError(f"{key}: holds what is no text")
    return arrays


def _check_size(member: Any, info: zipfile.ZipInfo) -> None:
    """Raise a ValueError if an array asks for another number of bytes than its member of the archive has."""
    version = np.lib.format.read_magic(member)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(member)
    if member.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
        raise ValueError(f"{info.filename}: shape {shape} of {dtype} is not what its {info.file_size} bytes hold")


def check_writable(path: str | Path, suffixes: tuple[str, ...] = ()) -> None:
    """Find out before any work whether `path` can be written at its end.

    Raises:
        InputError: its folder is missing or takes no files, it is no regular file, or its ending is none of `suffixes`.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: cannot write a {path.suffix or 'nameless'} file; use {', '.join(suffixes)}")
    try:
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # fails on a name that is too long; the trial's is shorter
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise InputError(f"{path}: is {kind}; name a file to write")
        trial = _beside(path)
        trial.touch()  # the only reliable question: permissions say nothing to root, on full disks, on read-only mounts
        trial.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror} ({path.resolve().parent})") from error


def check_folder(path: str | Path) -> None:
    """Find out before any work whether a folder is there, or can be made, and takes files; nothing is made.

    Raises:
        InputError: something else is in its place, or its parent takes no files.
    """
    path = Path(path)
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        trial = _beside(there / path.name)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}; name another folder") from error


def make_folder(path: str | Path) -> Path:
    """The folder, with its parents, if it was not there.

    Raises:
        InputError: it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}; name another folder") from error
    return path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and rename it: `path` is whole, or as it was before.

    The temporary name keeps the ending, by which writers such as matplotlib choose the format.

    Raises:
        InputError: the path cannot be written. What `write` raises is passed on, with nothing left behind.
    """
    check_writable(path)
    path = Path(path).resolve()  # through a link, so that the link stays one
    temporary = _beside(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # the umask's: safetensors lets none but the owner read
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a file that is whole to its final name, such that both survive a crash."""
    sync(temporary)
    temporary.replace(path)
    if os.name == "posix":  # the rename itself survives a crash only once the folder is synced
        sync(path.parent)


def sync(path: Path) -> None:
    """Let a file, or a folder's list of names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    path = path.resolve()
    return path.with_name(f".{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix}")
