"""Which captions, questions and answers are used: the same rules in every format."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from limber_interp.datasets import Rejected, fingerprint, open_dataset, open_questions, read_folder
from limber_interp.datasets.base import flaw, one_line
from limber_interp.errors import InputError
from limber_interp.models.limber import Limber

FLAWED = {
    "a dog \ud83d": "has half of a surrogate pair (U+D83D) at character 6",
    "\udc36 a dog": "has half of a surrogate pair (U+DC36) at character 0",
    "a \x00 dog": "has the control character (U+0000) at character 2",
    "a dog\x1b[2J": "has the control character (U+001B) at character 5",
    "a dog<|endoftext|>": "has <|endoftext|>, which is a token's name and no text",
}


@pytest.mark.parametrize("text", FLAWED)
def test_what_cannot_be_used_and_why(text: str) -> None:
    assert flaw(text) == FLAWED[text]


@pytest.mark.parametrize(
    "text", ["a dog \U0001f436", "piñata\u0301", "it\x92s", "日本", "a <b> | c", "\ufffd", "a\tb\n"]
)
def test_what_is_odd_but_text(text: str) -> None:
    assert flaw(text) is None


def test_the_tokenizer_takes_what_has_no_flaw(tiny: Limber) -> None:
    """Of all that is no text, half of a surrogate pair alone is refused, in the middle of training, by a TypeError that
    names no example."""
    characters = [chr(code) for code in (*range(0x300), *range(0xD7F0, 0xE010), 0xFFFD, 0xFFFF, 0x1F436, 0x10FFFF)]
    for character in characters:
        if flaw(character) is None:
            assert tiny.vocabulary.text(tiny.vocabulary.encode(f"a{character}b")) == f"a{character}b"
        elif "surrogate" in str(flaw(character)):
            with pytest.raises(TypeError):
                tiny.vocabulary.tokenizer(f"a{character}b")
    assert tiny.vocabulary.encode("<|endoftext|>") == [tiny.vocabulary.eos], "and would end the caption there"


def test_one_line() -> None:
    assert one_line(" a bus\r\n on\tthe \u2028road\n") == "a bus on the road"


def dataset_of(kind: str, root: Path, caption: str) -> Path:
    """Two images of which the second has the caption, in one of the formats."""
    captions = ["a cat", caption]
    for index in range(2):
        (root / f"{index}.png").write_bytes(b"")
    if kind == "coco":
        images = [{"id": i, "file_name": f"{i}.png"} for i in range(2)]
        told = [{"image_id": i, "caption": captions[i]} for i in range(2)]
        (root / "c.json").write_text(json.dumps({"images": images, "annotations": told}))
        return root / "c.json"
    if kind == "folder":
        (root / "image_data" / "0").mkdir(parents=True)
        for index in range(2):
            record = {"captions": [captions[index]], "image_path": f"{index}.png"}
            (root / "image_data" / "0" / f"{index}.json").write_text(json.dumps(record))
        return root
    if kind == "csv":
        (root / "t.csv").write_text(f'path,caption\n0.png,a cat\n1.png,"{caption}"\n', encoding="utf-8", newline="")
        return root / "t.csv"
    with tarfile.open(root / "s.tar", "w") as tar:
        for index in range(2):
            content = captions[index].encode() if kind == "txt" else json.dumps({"caption": captions[index]}).encode()
            for ending, part in (("png", b""), (kind, content)):
                member = tarfile.TarInfo(f"{index}.{ending}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    return root / "s.tar"


@pytest.mark.parametrize("kind", ["coco", "folder", "csv", "txt", "json"])
def test_captions_are_one_line_in_every_format(kind: str, tmp_path: Path) -> None:
    """COCO's kept their line breaks, on which training then spent its tokens."""
    dataset = open_dataset(dataset_of(kind, tmp_path, " a bus\non  the road\n"))
    assert dataset[1].captions == ("a bus on the road",)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kind, text)
        for kind in ("coco", "folder", "csv", "txt", "json")
        for text in FLAWED
        if kind not in ("csv", "txt") or "surrogate" not in FLAWED[text]  # which UTF-8 cannot hold
    ],
)
def test_captions_that_cannot_be_used_are_rejected_in_every_format(kind: str, text: str, tmp_path: Path) -> None:
    """A lone surrogate stopped training after hours, and again on --resume."""
    dataset = open_dataset(dataset_of(kind, tmp_path, text))
    assert dataset[0].captions == ("a cat",)
    with pytest.raises(Rejected) as rejected:
        dataset[1]
    assert f"a caption {FLAWED[text]}: " in str(rejected.value)


@pytest.mark.parametrize("caption", [5, True, None, ["a"], {"a": 1}, "", " \n"])
@pytest.mark.parametrize("kind", ["coco", "folder", "json"])
def test_captions_that_are_no_text(kind: str, caption: Any, tmp_path: Path) -> None:
    dataset = open_dataset(dataset_of(kind, tmp_path, caption))
    assert dataset[0].captions == ("a cat",)
    with pytest.raises(Rejected, match="a caption is empty or no text: "):
        dataset[1]


def test_a_long_value_is_cut_in_the_reason(tmp_path: Path) -> None:
    dataset = open_dataset(dataset_of("json", tmp_path, "\x00" + "a" * 10_000))
    with pytest.raises(Rejected) as rejected:
        dataset[1]
    assert len(str(rejected.value)) < 300


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (["a", "b"], r"its metadata is no object \{name: value\}, but \['a', 'b'\]"),
        ("a", "its metadata is no object"),
        ([], "its metadata is no object"),
        ({"nouns": ["dog", "\ud83d"]}, r"its metadata has half of a surrogate pair: '\\ud83d'"),
    ],
)
def test_metadata_that_cannot_be_used(folder: Path, metadata: Any, reason: str) -> None:
    """A list was given on as it was, to fail far away where names are looked up in it."""
    path = folder / "image_data/0/001.json"
    path.write_text(json.dumps({"captions": ["a dog"], "metadata": metadata}))
    dataset = open_dataset(folder)
    with pytest.raises(Rejected, match=f"0/001: {reason}"):
        dataset[1]
    with pytest.raises(InputError, match=r"001\.json: its metadata"):
        read_folder(folder)
    path.write_text(json.dumps({"captions": ["a dog"], "metadata": None}))
    assert dataset[1].metadata == {}


@pytest.mark.parametrize("text", FLAWED)
@pytest.mark.parametrize("part", ["question", "answers", "kind"])
def test_questions_that_cannot_be_used(folder: Path, part: str, text: str) -> None:
    for index, flawed in enumerate([False, True]):
        asked = {"question": "What is\n it? ", "answers": ["a  dog"], "kind": "what"}
        if flawed:
            asked[part] = ["a cat", text] if part == "answers" else text
        record = {"captions": ["a dog"], "metadata": {"questions": [asked]}}
        if index == 0:
            record["image_path"] = "images/000.png"
        (folder / f"image_data/0/00{index}.json").write_text(json.dumps(record))
    # A surrogate in its metadata is found before anyone looks for questions there
    reason = (
        "its metadata has half"
        if "surrogate" in FLAWED[text]
        else f"the question, its kind or an answer {FLAWED[text]}"
    )
    questions = open_questions(folder)
    assert (questions[0].question, questions[0].answers) == ("What is it?", ("a dog",))
    with pytest.raises(Rejected) as rejected:
        questions[1]
    assert reason in str(rejected.value)


@pytest.mark.parametrize("name", ["a\0b.png", "\ud83d.png", "x" * 5000 + ".png"])
def test_names_that_no_file_can_have_are_not_there(tmp_path: Path, name: str) -> None:
    """The fingerprint raised a ValueError, or the reader an OSError."""
    path = dataset_of("coco", tmp_path, "a dog")
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = name
    path.write_text(json.dumps(content))
    dataset = open_dataset(path)
    with pytest.raises(Rejected, match="its image .* is not there"):
        dataset[1]
    assert len(fingerprint(dataset)) == 64


def test_json_that_is_nested_too_deeply(tmp_path: Path, folder: Path) -> None:
    """RecursionError is none of JSON's errors."""
    deep = "[" * 100_000
    (tmp_path / "c.json").write_text(deep)
    for open_it in (open_dataset, open_questions):
        with pytest.raises(InputError, match=r"c\.json: .*nested too deeply"):
            open_it(tmp_path / "c.json")
    (folder / "image_data/0/001.json").write_text(deep)
    with pytest.raises(Rejected, match="0/001: not a record .*nested too deeply"):
        open_dataset(folder)[1]


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = dataset_of("coco", tmp_path, "a dog")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert open_dataset(path)[1].captions == ("a dog",)


def test_coco_finds_its_folder_though_the_first_image_is_missing(tmp_path: Path) -> None:
    """All of them were said to be elsewhere."""
    path = dataset_of("coco", tmp_path, "a dog")
    (tmp_path / "0.png").unlink()
    dataset = open_dataset(path)
    assert dataset[1].captions == ("a dog",)
    with pytest.raises(Rejected, match=r"0\.png is not there"):
        dataset[0]


def test_records_that_lie_elsewhere_are_logged_and_macos_files_are_nothing(folder: Path, caplog) -> None:
    """They were left out without a word."""
    record = (folder / "image_data/0/000.json").read_text()
    (folder / "image_data/0/a").mkdir()
    for name in ("9.json", "0/a/9.json", "0/._000.json", "._9.json"):
        (folder / "image_data" / name).write_text(record)
    (folder / "image_data/0").rename(folder / "elsewhere")
    (folder / "image_data/0").symlink_to(folder / "elsewhere")
    dataset = open_dataset(folder)
    assert len(dataset) == 9
    assert dataset[0].key == "0/000"
    [line] = caplog.messages
    first = folder / "image_data/0/a/9.json"
    assert line == f"{folder}: 2 JSON files that do not lie in image_data/<n>/ are not used; the first: {first}"


@pytest.mark.parametrize("path", ["a\0b", "a\0*.tar", "x" * 5000, "\ud83d", "[z-a", "{2..1}.tar"])
def test_paths_that_are_none(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError):
        open_dataset(tmp_path / path)
    with pytest.raises(InputError):
        open_questions(tmp_path / path)


def test_a_reason_is_one_line() -> None:
    assert str(Rejected("a\nb", "no\n image")) == "a b: no image"
