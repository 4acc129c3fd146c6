"""Shards as people make them: every member is part of an example, or of one that is listed, or counted in the log."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from limber_interp.datasets import Rejected, open_dataset
from limber_interp.errors import InputError
from limber_interp.images import load_image

TEXT = b"A dog."


def picture(ending: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 0, 0)).save(stream, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending))
    return stream.getvalue()


IMAGE = picture()


def shard(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for given in members:
            if isinstance(given, tarfile.TarInfo):
                tar.addfile(given)
                continue
            member = tarfile.TarInfo(given[0])
            member.size = len(given[1])
            tar.addfile(member, io.BytesIO(given[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def read(path: Path | str) -> list[str]:
    """Of every index the key, or why there is no example; each one is opened."""
    dataset = open_dataset(path)
    found = []
    for index in range(len(dataset)):
        try:
            example = dataset[index]
            load_image(example.image)
            assert example.captions == ("A dog.",)
            found.append(example.key)
        except Rejected as rejected:
            found.append(str(rejected))
    return found


def test_names_with_dots(tmp_path: Path) -> None:
    """Split at the first dot, as webdataset does, `photo.v1.jpg` was of a kind `v1.jpg`, and vanished."""
    names = [
        "photo.v1.png",
        "photo.v1.txt",
        "22.05.PNG",
        "22.05.txt",
        "22.06.png",
        "22.06.txt",
        "plain.png",
        "plain.txt",
    ]
    path = shard(tmp_path / "s.tar", [(name, TEXT if name.endswith("txt") else IMAGE) for name in names])
    assert read(path) == ["s.tar/photo.v1", "s.tar/22.05", "s.tar/22.06", "s.tar/plain"]


def test_other_fields_of_an_example_are_no_examples_but_counted(tmp_path: Path, caplog) -> None:
    fields = [
        ("0.png", IMAGE),
        ("0.txt", TEXT),
        ("0.json", b"{}"),
        ("0.cls", b"5"),
        ("0.seg.png", IMAGE),
        ("0.a.txt", TEXT),
    ]
    path = shard(tmp_path / "s.tar", [*fields, ("1.png", IMAGE), ("1.txt", TEXT), ("1.cls", b"3"), ("README", b"")])
    assert read(path) == ["s.tar/0", "s.tar/1"]
    [line] = caplog.messages
    assert line == f"{path}: members that are not used: 2 .cls, 1 .seg.png, 1 .a.txt, 1 without ending"


@pytest.mark.parametrize("ending", ["gif", "bmp", "tif", "tiff", "ppm", "JPEG", "GIF"])
def test_images_of_other_kinds(tmp_path: Path, ending: str) -> None:
    """They had vanished with their captions, which then counted as examples without an image."""
    path = shard(tmp_path / "s.tar", [(f"0.{ending}", picture(ending.lower())), ("0.txt", TEXT)])
    assert read(path) == ["s.tar/0"]


def test_images_that_cannot_be_opened_are_listed_by_whoever_opens_them(tmp_path: Path) -> None:
    dataset = open_dataset(shard(tmp_path / "s.tar", [("0.heic", b"\0\0\0\x18ftypheic"), ("0.txt", TEXT)]))
    assert len(dataset) == 1
    with pytest.raises(InputError):
        load_image(dataset[0].image)


def test_links_are_followed_within_the_shard(tmp_path: Path) -> None:
    """tar stores a file that it meets again as a hard link: the example had vanished."""
    links = [
        special("b/1.png", tarfile.SYMTYPE, "../a/2.png"),  # before what it leads to, over a hard link
        ("a/0.png", IMAGE),
        ("a/0.txt", TEXT),
        special("a/2.png", tarfile.LNKTYPE, "a/0.png"),
        special("a/2.txt", tarfile.LNKTYPE, "./a/0.txt"),
        special("b/1.txt", tarfile.SYMTYPE, "../a/0.txt"),
    ]
    assert read(shard(tmp_path / "s.tar", links)) == ["s.tar/b/1", "s.tar/a/0", "s.tar/a/2"]


def test_what_is_no_plain_file_in_a_shard(tmp_path: Path) -> None:
    members = [
        special("0.png", tarfile.SYMTYPE, "/gone.png"), ("0.txt", TEXT),
        special("1.png", tarfile.SYMTYPE, "2.png"), special("2.png", tarfile.SYMTYPE, "1.png"), ("1.txt", TEXT),
        special("3.png", tarfile.FIFOTYPE), ("3.txt", TEXT), special("4.png", tarfile.DIRTYPE), ("5.png", IMAGE),
        ("5.txt", TEXT),
    ]  # fmt: skip
    assert read(shard(tmp_path / "s.tar", members)) == [
        "s.tar/0: its .png is a link to /gone.png, which is no file in the shard",
        "s.tar/1: its .png is a link to 2.png, which is no file in the shard",
        "s.tar/2: its .png is a link to 1.png, which is no file in the shard",
        "s.tar/3: its .png is no regular file",
        "s.tar/5",
    ]


def test_a_sparse_member_is_not_read_as_its_packed_bytes(tmp_path: Path) -> None:
    """What lies at its place in the archive are its filled parts alone; and what follows it is no tear."""
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, headers in (
            ("0.png", IMAGE, {}),
            ("0.txt", TEXT, {"GNU.sparse.map": "0,6", "GNU.sparse.size": "1000000"}),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(content), headers
            tar.addfile(member, io.BytesIO(content))
    assert read(tmp_path / "s.tar") == ["s.tar/0: its .txt is a sparse file; pack it without --sparse"]


def test_archives_behind_one_another_are_all_read(tmp_path: Path) -> None:
    """Of `cat a.tar b.tar > c.tar`, tarfile reads the first alone, and the rest had vanished."""
    parts = [shard(tmp_path / f"{i}.tar", [(f"{i}.png", IMAGE), (f"{i}.txt", TEXT)]).read_bytes() for i in range(3)]
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(parts))
    assert read(whole) == ["whole.tar/0", "whole.tar/1", "whole.tar/2"]
    whole.write_bytes(b"".join(parts)[:-9000])  # within the last archive, of 10,240 bytes
    assert read(whole)[:2] == ["whole.tar/0", "whole.tar/1"]
    assert "torn, or followed by what is no tar file" in read(whole)[2]
    whole.write_bytes(parts[0] + b"more" * 500)
    assert read(whole) == [
        "whole.tar/0",
        "whole.tar: torn, or followed by what is no tar file: 1 examples lie whole before the tear",
    ]


def test_a_shard_that_is_compressed_is_said_to_be(tmp_path: Path) -> None:
    content = [("0.png", IMAGE), ("0.txt", TEXT)]
    plain = shard(tmp_path / "s" / "0.tar", content)
    for mode in ("gz", "bz2", "xz"):
        with tarfile.open(tmp_path / "s" / f"{mode}.tar", f"w:{mode}") as tar:
            tar.add(plain, "0.tar")
    found = read(tmp_path / "s")
    assert found[0] == "0.tar/0"
    kinds = [("bz2", "bzip2"), ("gz", "gzip"), ("xz", "xz")]
    ending = "; decompress it, for examples are read by their offsets"
    assert found[1:] == [f"{name}.tar: compressed ({kind}){ending}" for name, kind in kinds]


@pytest.mark.parametrize("asked", ["s.tar.gz", "", "*.tgz"])
def test_compressed_archives_by_their_names(tmp_path: Path, asked: str) -> None:
    for name in ("s.tar.gz", "t.tgz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=r"(s\.tar\.gz|t\.tgz): a compressed archive, .* decompress it to \.tar first"):
        open_dataset(tmp_path / asked)


def test_what_macos_adds_is_nothing(tmp_path: Path) -> None:
    """`._0.png` had been rejected as an example, and `._00000.tar` as a shard."""
    members = [
        ("._0.png", b"junk"),
        ("0.png", IMAGE),
        ("a/._0.txt", b"x"),
        ("0.txt", TEXT),
        ("__MACOSX/0.png", b"junk"),
    ]
    shard(tmp_path / "s" / "00000.tar", members)
    (tmp_path / "s" / "._00000.tar").write_bytes(b"junk")
    assert read(tmp_path / "s") == read(tmp_path / "s" / "*.tar") == ["00000.tar/0"]


def test_braces_name_shards_as_in_webdataset(tmp_path: Path) -> None:
    """They had been "not there"."""
    for index in range(9, 12):
        shard(tmp_path / "a" / f"{index:05d}.tar", [(f"{index}.png", IMAGE), (f"{index}.txt", TEXT)])
    shard(tmp_path / "b" / "00009.tar", [("0.png", IMAGE), ("0.txt", TEXT)])
    found = ["00009.tar/9", "00010.tar/10", "00011.tar/11"]
    assert read(tmp_path / "a" / "{00009..00011}.tar") == found
    assert read(tmp_path / "a" / "{00011..00009}.tar") == found[::-1]
    assert read(tmp_path / "a" / "000{09,11}.tar") == [found[0], found[2]]
    assert read(tmp_path / "{b,a}" / "{00009..00009}.tar") == ["00009.tar/0", "00009.tar/9"]
    assert read(tmp_path / "{a,b}" / "*9.tar") == ["00009.tar/9", "00009.tar/0"]
    with pytest.raises(InputError, match=r"00012\.tar: not there, but .*\{00009\.\.99999999999\}\.tar names it"):
        open_dataset(tmp_path / "a" / "{00009..99999999999}.tar")


def test_a_shard_that_changed_since_it_was_opened(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", [("0.png", IMAGE), ("0.txt", TEXT)])
    dataset = open_dataset(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(Rejected, match=r"s\.tar/0: .*s\.tar has become shorter since it was opened"):
        dataset[0]
    path.unlink()
    with pytest.raises(Rejected, match=r"s\.tar/0: .*s\.tar cannot be read: No such file"):
        dataset[0]


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE, b"?"])
def test_a_member_of_a_negative_size_is_a_tear(tmp_path: Path, kind: bytes) -> None:
    """tarfile goes back by it, and came to the same member for ever."""
    path = shard(tmp_path / "s.tar", [("0.png", IMAGE), ("0.txt", TEXT), ("1.png", IMAGE), ("1.txt", TEXT)])
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        start = tar.getmembers()[2].offset
    header = content[start : start + tarfile.BLOCKSIZE]
    header[124:136] = (-2 * tarfile.BLOCKSIZE).to_bytes(12, "big", signed=True)
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[start : start + tarfile.BLOCKSIZE] = header
    path.write_bytes(content)
    assert read(path) == ["s.tar/0", "s.tar: torn, or no tar file: 1 examples lie whole before the tear"]
