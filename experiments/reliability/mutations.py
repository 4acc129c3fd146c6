"""Broken files from sound ones: `mutate` changes bytes, or what lies inside of the containers that it knows.

Changed bytes alone hardly get past the first check of a format: a zip's checksums, a header's JSON. So a file is taken
apart where its format is known (zip, .npy, safetensors, tar, PNG, JSON, lines), one part is changed, and it is put
together again with right checksums and lengths. Every choice comes from the generator given: the same input for the
same seed.
"""

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np

Parts = dict[str, bytes]
Pack = Callable[[Parts], bytes]

DEEP = 3000  # levels of nesting, more than Python's recursion takes
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
# What is rare in a sound file and common in a broken one: words of text formats, opcodes of pickles, magic numbers
TOKENS = (
    b"", b"\0", b"\n", b"\r\n", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"'", b",", b"\\",
    b"\\ud800", b"null", b"true", b"-1", b"0", b"1e999", b"-Infinity", b"NaN", b"9" * 5000, b"x" * 100_000,
    b"../../x", b"/dev/zero", b"[" * DEEP, b'{"a":' * DEEP, b"&a [*a, *a]", b"<<: *a", b"!!python/object:x.Y {}",
    b"? : -", b"%YAML 9", b"|", b">", b"\x80\x02", b"\x80\x05", b".", b"0", b"R", b"b", b"Q", b"\x81", b"\x93", b"(",
    b"t", b"}", b"h\0", b"q\0", b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"PK\x03\x04",
    b"PK\x05\x06", b"\x89PNG", b"II*\0", b"MM\0*",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30, -(2**63),
    "", " ", "\0", "\ud800", "é", "a\nb", "x" * 10_000, "../x", "/dev/null", "1", "F32", "F64", "$record",
    [], {}, [[]], [None], [0, 0], [-1, 2], [2**62, 4], {"": ""}, {"a": {"b": {}}},
)  # fmt: skip


def mutate(data: bytes, other: bytes, random: Random) -> bytes:
    """A changed copy of `data`.

    Args:
        other: another file, or the same, of which a piece may be put in.
    """
    for take_apart in (_zip, _array, _safetensors, _tar, _png):
        if random.random() < 0.75 and (found := _tried(take_apart, data)):
            parts, pack = found
            name = random.choice(sorted(parts))
            if random.random() < 0.1:
                parts[random.choice(sorted(parts))] = parts[name]
            else:
                parts[name] = mutate(parts[name], other, random)
            with suppress(Exception):  # what the format cannot hold at all
                return pack(parts)
    if random.random() < 0.6 and (found_json := _of_json(data, random)) is not None:
        return found_json
    return _of_bytes(data, other, random)


def _of_bytes(data: bytes, other: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        start, stop = sorted((random.randint(0, len(changed)), random.randint(0, len(changed))))
        stop = min(stop, start + random.choice((1, 4, 64, len(changed))))
        match random.randrange(9):
            case 0 if changed:  # a bit
                changed[min(start, len(changed) - 1)] ^= 1 << random.randrange(8)
            case 1:  # some bytes
                changed[start:stop] = random.randbytes(min(stop - start, 16))
            case 2:  # truncation
                del changed[start:]
            case 3:
                del changed[start:stop]
            case 4:  # a block twice
                changed[stop:stop] = changed[start:stop]
            case 5:  # a block in another place
                block = changed[start:stop]
                del changed[start:stop]
                place = random.randint(0, len(changed))
                changed[place:place] = block
            case 6:  # a field of the header or of a length
                width = random.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
                field = struct.pack(width, random.choice(NUMBERS) % 2 ** (8 * struct.calcsize(width)))
                changed[start : start + len(field)] = field
            case 7:  # a splice
                place = random.randint(0, len(other))
                changed[start:stop] = other[place : place + random.choice((8, 256, len(other)))]
            case _:
                changed[start : random.choice((start, stop))] = random.choice(TOKENS)
    return bytes(changed)


def _of_json(data: bytes, random: Random) -> bytes | None:
    """One value of a JSON text in another's place, or gone, or odd; of JSON lines, in one of them."""
    try:
        value, lines = json.loads(data), False
    except (ValueError, RecursionError):
        try:
            value, lines = [json.loads(line) for line in data.splitlines()], True
        except (ValueError, RecursionError):
            return None
    holder = {"": value}
    for _ in range(random.choice((1, 1, 2))):
        _change(holder, random)
    changed = holder.get("")
    with suppress(ValueError, RecursionError):  # a number of more digits than Python writes
        if lines and isinstance(changed, list):
            return "".join(json.dumps(row) + "\n" for row in changed).encode()
        return json.dumps(changed).encode()
    return None


def _change(holder: dict[str, Any], random: Random) -> None:
    places = list(_places(holder))
    if not places:
        return
    inside, key = random.choice(places)
    match random.randrange(6):
        case 0:
            del inside[key]
        case 1:
            other, place = random.choice(places)
            inside[key] = deepcopy(other[place])  # or it might come to hold itself
        case 2 if isinstance(inside, dict):
            inside[random.choice(("x", "", "$record", "__class__", f"{key}_"))] = inside.pop(key)
        case 3 if isinstance(inside, list):
            inside.insert(0, inside[key])
        case 4 if isinstance(inside[key], str):
            inside[key] = random.choice((inside[key] * 2, inside[key][1:], [inside[key]], inside[key].upper()))
        case 4 if isinstance(inside[key], int | float):
            inside[key] = random.choice((-inside[key], inside[key] + 1, inside[key] * 1000, str(inside[key])))
        case _:
            inside[key] = deepcopy(random.choice(VALUES))


def _places(value: Any) -> Any:
    """(container, key) of every value inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


# Containers: their parts, and how they are put together again


def _tried(take_apart: Callable[[bytes], tuple[Parts, Pack] | None], data: bytes) -> tuple[Parts, Pack] | None:
    try:
        found = take_apart(data)
    except Exception:  # it is broken already
        return None
    return found if found and found[0] else None


def _zip(data: bytes) -> tuple[Parts, Pack] | None:
    if data[:2] != b"PK":
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
        parts = {name: archive.read(name) for name in kinds}

    def pack(parts: Parts) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in parts.items():
                archive.writestr(zipfile.ZipInfo(name), content, kinds[name])
        return stream.getvalue()

    return parts, pack


def _array(data: bytes) -> tuple[Parts, Pack] | None:
    """A text in a .npy, as records keep their JSON."""
    if data[:6] != b"\x93NUMPY":
        return None
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind != "U" or array.ndim:
        return None

    def pack(parts: Parts) -> bytes:
        stream = io.BytesIO()
        np.save(stream, np.array(parts["text"].decode("utf-8", "replace")))
        return stream.getvalue()

    return {"text": str(array).encode()}, pack


def _safetensors(data: bytes) -> tuple[Parts, Pack] | None:
    if data[8:9] != b"{":
        return None
    stop = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:stop])
    manifest = header.get("__metadata__", {}).pop("manifest", None)
    parts = {"header": json.dumps(header).encode(), "tensors": data[stop:]}
    if manifest is not None:
        parts["manifest"] = manifest.encode()

    def pack(parts: Parts) -> bytes:
        header = parts["header"]
        if "manifest" in parts:
            try:
                whole = json.loads(header)
                whole["__metadata__"]["manifest"] = parts["manifest"].decode("utf-8", "replace")
                header = json.dumps(whole).encode()
            except (ValueError, LookupError, TypeError, RecursionError):
                pass  # the header was changed, and has no such place any more
        return struct.pack("<Q", len(header)) + header + parts["tensors"]

    return parts, pack


def _tar(data: bytes) -> tuple[Parts, Pack] | None:
    if data[257:262] != b"ustar":
        return None
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive if member.isreg()}
        parts = {name: archive.extractfile(member).read() for name, member in members.items()}  # type: ignore[union-attr]

    def pack(parts: Parts) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, content in parts.items():
                members[name].size = len(content)
                archive.addfile(members[name], io.BytesIO(content))
        return stream.getvalue()

    return parts, pack


def _png(data: bytes) -> tuple[Parts, Pack] | None:
    if data[:4] != b"\x89PNG":
        return None
    parts, place = {}, 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        parts[f"{place:08d}"] = data[place + 4 : place + 8 + length]
        place += 12 + length

    def pack(parts: Parts) -> bytes:
        chunks = (struct.pack(">I", max(0, len(c) - 4)) + c + struct.pack(">I", zlib.crc32(c)) for c in parts.values())
        return data[:8] + b"".join(chunks)

    return parts, pack
