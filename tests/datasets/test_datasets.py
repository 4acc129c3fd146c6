"""Each format read back exactly, and each thing that can be wrong in it named, without anything moving up."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from limber_interp.datasets import Dataset, Rejected, Rejections, fingerprint, open_dataset, read_folder
from limber_interp.errors import InputError
from limber_interp.images import load_image

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)]
CAPTIONS = ["A dog.", "A cat, on a car.", "An apple – large.", "A boat."]


def picture(index: int, ending: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), COLOURS[index]).save(stream, ending.replace("jpg", "jpeg"), **{"quality": 95})
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images."""
    (tmp_path / "images").mkdir()
    for index in range(4):
        (tmp_path / "images" / f"{index}.png").write_bytes(picture(index))
    return tmp_path


def read(dataset: Dataset) -> list[tuple[str, tuple[int, int, int], tuple[str, ...]] | str]:
    """Of every index the key, the colour and the captions, or why there is none."""
    found: list = []
    for index in range(len(dataset)):
        try:
            example = dataset[index]
            found.append((example.key, load_image(example.image).getpixel((3, 3)), example.captions))
        except Rejected as rejected:
            found.append(str(rejected))
    return found


# COCO


def coco(root: Path, images: list | None = None, annotations: list | None = None, name: str = "captions.json") -> Path:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    images = images or [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(4)]
    annotations = annotations or [{"image_id": 10 + i, "caption": CAPTIONS[i]} for i in range(4)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_coco_gives_an_image_with_all_its_captions(root: Path) -> None:
    annotations = [{"image_id": 10 + i % 4, "caption": f"{CAPTIONS[i % 4]} {i}"} for i in range(7)]
    dataset = open_dataset(coco(root, annotations=annotations))
    assert read(dataset)[1] == ("11", COLOURS[1], (f"{CAPTIONS[1]} 1", f"{CAPTIONS[1]} 5"))
    assert read(dataset)[3] == ("13", COLOURS[3], (f"{CAPTIONS[3]} 3",))
    assert len(dataset) == 4


def test_coco_finds_its_images_as_it_is_published(root: Path) -> None:
    (root / "images").rename(root / "train2017")
    dataset = open_dataset(coco(root, name="annotations/captions_train2017.json"))
    assert read(dataset)[0] == ("10", COLOURS[0], (CAPTIONS[0],))
    assert read(open_dataset(coco(root), root / "train2017")) == read(dataset)


def test_what_is_wrong_in_coco(root: Path) -> None:
    images = [{"id": i, "file_name": name} for i, name in enumerate(["0.png", "gone.png", "2.png", "3.png"])]
    images.append({"id": 3, "file_name": "1.png"})
    annotations = [{"image_id": i, "caption": "A dog."} for i in (0, 1, 3)]
    gone = root / "images" / "gone.png"
    twice = "3: 2 images have this id"
    expected = [("0", COLOURS[0], ("A dog.",)), f"1: its image {gone} is not there", "2: no caption", twice, twice]
    assert read(open_dataset(coco(root, images, annotations))) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not COCO captions: Expecting property name"),
        ("[]", "not COCO captions: list indices"),
        ('{"images": []}', "key or image id 'annotations' is missing"),
        ('{"images": [], "annotations": []}', "no image in it"),
        ('{"images": [], "annotations": [{"image_id": 5, "caption": "A"}]}', "key or image id '5' is missing"),
        ('{"images": [{"id": 1, "file_name": 5}], "annotations": []}', "file_name 5 is no text"),
        ('{"images": [{"id": 1, "file_name": "no.png"}], "annotations": []}', "name their folder with --images"),
    ],
)
def test_files_that_are_no_coco_captions(root: Path, content: str, message: str) -> None:
    (root / "captions.json").write_text(content)
    with pytest.raises(InputError, match=rf"captions\.json: .*{message}"):
        open_dataset(root / "captions.json")


# Tables


def table(path: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t")])
def test_a_table_groups_the_rows_of_one_path(root: Path, name: str, delimiter: str) -> None:
    rows = [[f"images/{i % 4}.png", "-", f"{CAPTIONS[i % 4]} {i}"] for i in range(5)]
    dataset = open_dataset(table(root / name, [["Image_Path", "source", "caption"], *rows], delimiter))
    assert read(dataset)[0] == ("images/0.png", COLOURS[0], (f"{CAPTIONS[0]} 0", f"{CAPTIONS[0]} 4"))
    assert [key for key, _, _ in read(dataset)] == [f"images/{i}.png" for i in range(4)]


def test_paths_of_a_table_are_relative_to_the_images_where_given(root: Path, tmp_path_factory) -> None:
    path = table(tmp_path_factory.mktemp("elsewhere") / "t.csv", [["text", "file"], ["A dog.", "2.png"]])
    assert read(open_dataset(path, root / "images")) == [("2.png", COLOURS[2], ("A dog.",))]


def test_what_is_wrong_in_a_table(root: Path) -> None:
    rows = [["path", "caption"], ["images/0.png", " "], ["gone.png", "A"], ["", "A"], ["images/1.png"]]
    assert read(open_dataset(table(root / "t.csv", rows))) == [
        "images/0.png: a caption is empty or no text: ''",
        f"gone.png: its image {root / 'gone.png'} is not there",
        "t.csv, line 4: a row without a path",
        "t.csv, line 5: 1 field, but the header has 2",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column path or .* in its header; found none"),
        (b"path,words\n", "no column caption or text or title in its header; found path, words"),
        (b"path,caption\n", "no row in it"),
        (b"path,caption\n\xff,A\n", "not a table in UTF-8: 'utf-8' codec can't decode byte 0xff"),
        (b"path,caption,caption\n", "2 columns caption in its header; rename those that are not meant"),
        (b'path,"caption\n', "not a table in UTF-8: line 1: its quotes are not closed"),
    ],
)
def test_files_that_are_no_table(root: Path, content: bytes, message: str) -> None:
    (root / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"t\.csv: {message}"):
        open_dataset(root / "t.csv")


# WebDataset shards


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def members(index: int, ending: str = "png") -> list[tuple[str, bytes]]:
    """As img2dataset writes an example, its own facts beside image and caption."""
    facts = json.dumps({"caption": CAPTIONS[index], "width": 8})
    written = [(ending, picture(index, ending)), ("txt", CAPTIONS[index].encode()), ("json", facts.encode())]
    return [(f"{index:09d}.{name}", content) for name, content in written]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path, ending: str) -> None:
    shard(tmp_path / "s" / "00001.tar", members(2, ending) + members(3, ending))
    shard(tmp_path / "s" / "00000.tar", members(0, ending) + members(1, ending))
    folder = read(open_dataset(tmp_path / "s"))
    assert [(key, captions) for key, _, captions in folder] == [
        (f"0000{i // 2}.tar/{i:09d}", (CAPTIONS[i],)) for i in range(4)
    ]
    for (_, pixel, _), colour in zip(folder, COLOURS, strict=True):
        assert max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) <= 6, "up to the loss of the format"
    assert read(open_dataset(tmp_path / "s" / "0000[01].tar")) == folder
    assert read(open_dataset(tmp_path / "s" / "00001.tar")) == folder[2:]


def test_captions_in_json_alone_and_names_with_folders_and_dots(tmp_path: Path) -> None:
    several = json.dumps({"captions": ["A", "B"]}).encode()
    path = shard(
        tmp_path / "s.tar",
        [("a/0.png", picture(0)), ("a/0.json", b'{"caption": "A dog."}'), ("a/0.cls.txt", b"5"),
         ("1.PNG", picture(1)), ("1.json", several)],
    )  # fmt: skip
    assert read(open_dataset(path)) == [("s.tar/a/0", COLOURS[0], ("A dog.",)), ("s.tar/1", COLOURS[1], ("A", "B"))]


def test_what_is_wrong_in_a_shard(tmp_path: Path) -> None:
    image, text = picture(0), b"A dog."
    bad = [("0.txt", text), ("1.png", image), ("2.png", image), ("2.txt", b" "), ("3.png", image), ("3.json", b"{"),
           ("4.png", image), ("4.txt", text), ("4.png", image), ("5.png", image), ("5.jpg", image), ("5.txt", text),
           ("6.png", image), ("6.txt", text), ("7.png", image), ("7.txt", b"\xff")]  # fmt: skip
    found = read(open_dataset(shard(tmp_path / "s.tar", bad)))
    assert found[:3] == ["s.tar/0: no image", "s.tar/1: no caption", "s.tar/2: a caption is empty or no text: ''"]
    assert found[3].startswith("s.tar/3: its caption cannot be read: Expecting property name")
    assert found[4:6] == ["s.tar/4: several members 4.png", "s.tar/5: several images: jpg, png"]
    assert found[6] == ("s.tar/6", COLOURS[0], ("A dog.",))
    assert found[7].startswith("s.tar/7: its caption cannot be read: 'utf-8' codec")


def test_a_torn_shard_keeps_what_lies_whole_before_the_tear(tmp_path: Path) -> None:
    """Wherever it is torn: the whole examples are the first so many, then comes one entry for all the rest."""
    whole = shard(tmp_path / "whole.tar", members(0) + members(1) + members(2))
    expected = [captions for _, _, captions in read(open_dataset(whole))]
    content = whole.read_bytes()
    with tarfile.open(whole) as tar:
        stop = max(member.offset_data + member.size for member in tar.getmembers())
    kept = set()
    for size in [*range(0, stop, 100), stop]:
        path = tmp_path / "torn.tar"
        path.write_bytes(content[:size])
        *before, torn = read(open_dataset(path))
        assert [captions for _, _, captions in before] == expected[: len(before)]
        assert torn == f"torn.tar: torn, or no tar file: {len(before)} examples lie whole before the tear"
        kept.add(len(before))
    assert kept == {0, 1, 2, 3}


def test_a_torn_shard_leaves_the_next_one(tmp_path: Path) -> None:
    first = shard(tmp_path / "s" / "0.tar", members(0) + members(1))
    shard(tmp_path / "s" / "1.tar", members(2))
    first.write_bytes(b"<html>404</html>")
    assert [type(found) for found in read(open_dataset(tmp_path / "s"))] == [str, tuple]


def test_a_shard_without_examples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s\.tar: no \.jpg, \.png or \.webp with"):
        open_dataset(shard(tmp_path / "s.tar", [("readme.md", b"")]))


# All of them


def test_limbers_folder_format_by_index(folder: Path) -> None:
    (folder / "image_data/0/001.json").write_text("{")
    (folder / "images/002.png").unlink()
    dataset = open_dataset(folder)
    assert len(dataset) == 9
    assert (dataset[0].key, dataset[0].captions) == ("0/000", ("A picture of a dog on the grass.",))
    with pytest.raises(Rejected, match="0/001: not a record"):
        dataset[1]
    with pytest.raises(Rejected, match=r"0/002: its image .*002\.png is not there"):
        dataset[2]
    assert dataset[3].metadata == {"colour": 0}


@pytest.mark.parametrize("name", ["", "nowhere", "*.tar", "images/0.png"])
def test_what_is_no_data_set(root: Path, name: str) -> None:
    with pytest.raises(InputError, match="(not there|none of the formats); expected LIMBER's folder, COCO"):
        open_dataset(root / name)


def test_images_are_named_for_formats_that_take_it(folder: Path) -> None:
    with pytest.raises(InputError, match="--images elsewhere: only COCO captions and tables take it"):
        open_dataset(folder, "elsewhere")


def test_another_fingerprint_where_a_file_has_changed(root: Path, folder: Path) -> None:
    paths = [folder, coco(root), table(root / "t.csv", [["path", "caption"], ["images/0.png", "A"]])]
    paths.append(shard(root / "s.tar", members(0)))
    before = [fingerprint(open_dataset(path)) for path in paths]
    assert len(set(before)) == 4
    assert before == [fingerprint(open_dataset(path)) for path in paths]
    for path in (folder / "images/001.jpg", root / "images/0.png", root / "s.tar"):
        path.write_bytes(path.read_bytes() + bytes(1))
    assert not set(before) & {fingerprint(open_dataset(path)) for path in paths}


def test_rejections_are_listed_in_order_and_refused_where_they_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    rejections = Rejections("data", 200, path, max_rejected=0.01)
    rejections.add(150, Rejected("k150", "broken\nimage"))
    rejections.add(7, Rejected("k7", "no caption"))
    rejections.check()
    assert not path.exists()
    rejections.write()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"source": "data", "index": 7, "key": "k7", "reason": "no caption"},
        {"source": "data", "index": 150, "key": "k150", "reason": "broken image"},
    ]
    rejections.add(8, Rejected("k8", "no image"))
    message = r"data: 3 of 200 examples cannot be used, more than --max-rejected 1%; the first: k7: no caption; all: "
    with pytest.raises(InputError, match=message):
        rejections.check()
    assert len(path.read_text().splitlines()) == 3


def test_reads_limbers_folder_format_with_and_without_image_path(folder: Path) -> None:
    examples = read_folder(folder)
    assert [example.image.name for example in examples[:3]] == ["000.png", "001.jpg", "002.png"]
    assert len(examples) == 9
    assert examples[4].captions == ("A picture of a small apple above a large boat.",)
    assert examples[4].metadata == {"colour": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a record"),
        ("[]", "not a record"),
        (json.dumps({"captions": "a dog"}), "not a record"),
        (json.dumps({"captions": []}), "no caption; mend the file"),
        (json.dumps({"captions": ["a", "  "]}), "a caption is empty or no text: ' '"),
        (json.dumps({"captions": ["a"], "image_path": "images/gone.png"}), r"gone\.png is not there"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "image_data/0/003.json").write_text(content)
    with pytest.raises(InputError, match=rf"003\.json: .*{message}"):
        read_folder(folder)


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="LIMBER's format"):
        read_folder(tmp_path)
