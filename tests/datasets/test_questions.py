"""Questions read back exactly, and what is wrong with their files named."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from limber_interp.datasets import Rejected
from limber_interp.datasets.questions import Question, QuestionSet, open_questions
from limber_interp.errors import InputError

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
NO_QUESTION = '0/001#0: not a question {"question", "answers", "kind"}'
TEN = ["red", "red", "dark red", "red", "maroon", "red", "red", "brown", "red", "red"]


def read(questions: QuestionSet) -> list[Question | str]:
    """What is at every index, or why there is nothing."""
    found: list[Question | str] = []
    for index in range(len(questions)):
        try:
            found.append(questions[index])
        except Rejected as rejected:
            found.append(str(rejected))
    return found


def annotated(question_id: int, answers: list[Any], answer_type: str = "other") -> dict[str, Any]:
    rows = [{"answer_id": i, "answer": answer, "answer_confidence": "yes"} for i, answer in enumerate(answers, 1)]
    return {"question_id": question_id, "image_id": question_id // 1000, "answer_type": answer_type, "answers": rows}


@pytest.fixture
def vqa(tmp_path: Path) -> Path:
    """VQA v2's layout: three questions on two images."""
    (tmp_path / "val2014").mkdir()
    for image_id in (42, 73):
        Image.new("RGB", (8, 6)).save(tmp_path / "val2014" / f"COCO_val2014_{image_id:012d}.jpg")
    asked = [(42000, "What color is the bus?"), (42001, "Is it old?"), (73000, "How many dogs?")]
    rows = [{"question_id": key, "image_id": key // 1000, "question": question} for key, question in asked]
    content = {"data_type": "mscoco", "data_subtype": "val2014", "questions": rows}
    (tmp_path / QUESTIONS).write_text(json.dumps(content))
    # Not in the order of the questions: they are matched by id
    told = [annotated(73000, ["2"] * 10, "number"), annotated(42000, TEN), annotated(42001, ["no"] * 10, "yes/no")]
    (tmp_path / ANNOTATIONS).write_text(json.dumps({"annotations": told}))
    return tmp_path


def test_vqas_questions_with_the_answers_of_ten_people(vqa: Path) -> None:
    first, second, third = read(open_questions(vqa / QUESTIONS))
    image = vqa / "val2014" / "COCO_val2014_000000000042.jpg"
    assert first == Question(image, "What color is the bus?", tuple(TEN), "other", "42000")
    assert second == Question(image, "Is it old?", ("no",) * 10, "yes/no", "42001")
    assert isinstance(third, Question)
    assert (third.image, third.kind) == (vqa / "val2014" / "COCO_val2014_000000000073.jpg", "number")


def test_images_by_their_bare_number_and_a_folder_that_is_named(vqa: Path) -> None:
    (vqa / "val2014").rename(vqa / "elsewhere")
    for path in (vqa / "elsewhere").iterdir():
        path.rename(path.with_name(path.name.removeprefix("COCO_val2014_")))
    (vqa / ANNOTATIONS).rename(vqa / "answers.json")
    found = open_questions(vqa / QUESTIONS, vqa / "elsewhere", vqa / "answers.json")
    assert [question.image.name for question in map(found.__getitem__, range(3))] == [
        "000000000042.jpg", "000000000042.jpg", "000000000073.jpg"
    ]  # fmt: skip


def test_what_is_wrong_in_vqa_keeps_its_index(vqa: Path) -> None:
    (vqa / "val2014" / "COCO_val2014_000000000073.jpg").unlink()
    told = [annotated(42000, TEN), annotated(73000, ["2"] * 10)]
    (vqa / ANNOTATIONS).write_text(json.dumps({"annotations": told}))
    first, second, third = read(open_questions(vqa / QUESTIONS))
    assert isinstance(first, Question)
    assert second == "42001: no answers: []"
    assert third == f"73000: its image {vqa / 'val2014' / 'COCO_val2014_000000000073.jpg'} is not there"


def test_a_file_of_questions_without_answers(vqa: Path) -> None:
    (vqa / ANNOTATIONS).unlink()
    message = f"{QUESTIONS}: its answers are missing: .*{ANNOTATIONS} is not there; name VQA's file of annotations"
    with pytest.raises(InputError, match=message):
        open_questions(vqa / QUESTIONS)


def test_the_annotations_of_other_questions(vqa: Path) -> None:
    (vqa / ANNOTATIONS).write_text(json.dumps({"annotations": [annotated(99000, TEN)]}))
    with pytest.raises(InputError, match="no question with an answer: none of them is answered in"):
        open_questions(vqa / QUESTIONS)


def test_images_that_are_nowhere(vqa: Path) -> None:
    (vqa / "val2014").rename(vqa / "elsewhere")
    with pytest.raises(InputError, match=r"its images \(COCO_val2014_000000000042.jpg …\) are not beside it; name"):
        open_questions(vqa / QUESTIONS)
    with pytest.raises(InputError, match="nowhere: no such folder of images"):
        open_questions(vqa / QUESTIONS, vqa / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON: Expecting property name"),
        ("[]", "no questions in it; expected VQA v2's file of questions"),
        ('{"questions": []}', "no questions in it"),
        ('{"questions": [{"question_id": 1}]}', "not VQA v2's questions and annotations: KeyError\\('image_id'\\)"),
        ('{"questions": [5]}', "not VQA v2's questions and annotations: TypeError"),
    ],
)
def test_files_that_are_not_vqas(vqa: Path, content: str, message: str) -> None:
    (vqa / QUESTIONS).write_text(content)
    with pytest.raises(InputError, match=message):
        open_questions(vqa / QUESTIONS)


def ask(folder: Path, name: str, questions: Any) -> None:
    path = folder / "image_data" / name
    record = json.loads(path.read_text())
    record["metadata"]["questions"] = questions
    path.write_text(json.dumps(record))


def test_limbers_folder_has_questions_in_its_metadata(folder: Path) -> None:
    where = {"question": "Where is it?", "answers": ["on the grass"], "kind": "where"}
    ask(folder, "0/000.json", [where, {"question": "What is it?", "answers": ["a dog", "a hound"], "kind": "what"}])
    ask(folder, "1/005.json", [where])
    first, second, third = read(open_questions(folder))
    image = folder / "images" / "000.png"
    assert first == Question(image, "Where is it?", ("on the grass",), "where", "0/000#0")
    assert second == Question(image, "What is it?", ("a dog", "a hound"), "what", "0/000#1")
    assert isinstance(third, Question)
    assert (third.key, third.image) == ("1/005#0", folder / "images" / "005.jpg")


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (
            [{"question": "Where?"}],
            f"{NO_QUESTION}: {{'question': 'Where?'}}",
        ),
        ([{"question": "Where?", "answers": []}], "0/001#0: no answers: []"),
        ([{"question": "Where?", "answers": "here"}], "0/001#0: no answers: 'here'"),
        ([{"question": "Where?", "answers": [" "]}], "0/001#0: an answer is empty or no text: [' ']"),
        (
            [{"question": " ", "answers": ["here"]}],
            "0/001#0: the question is empty, or it or its kind no text: ' '",
        ),
        ("Where?", f"{NO_QUESTION}: 'Where?'"),
    ],
)
def test_what_is_wrong_in_a_folder(folder: Path, questions: Any, message: str) -> None:
    ask(folder, "0/000.json", [{"question": "What is it?", "answers": ["a dog"], "kind": "what"}])
    ask(folder, "0/001.json", questions)
    (folder / "image_data/1/008.json").write_text("{")
    first, second, third = read(open_questions(folder))
    assert isinstance(first, Question)
    assert isinstance(second, str)
    assert second.startswith(message)
    assert isinstance(third, str)
    assert third.startswith("1/008: not a record")


def test_a_folder_without_questions(folder: Path) -> None:
    with pytest.raises(InputError, match='no question with an answer: has no metadata\\["questions"\\] with answers'):
        open_questions(folder)
    with pytest.raises(InputError, match="names its images and has its answers itself"):
        open_questions(folder, images="elsewhere")


@pytest.mark.parametrize(("name", "reason"), [("", "neither"), ("nowhere", "not there")])
def test_what_is_no_question_set(vqa: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"{reason}; expected VQA v2's questions .json, or LIMBER's folder"):
        open_questions(vqa / name)


def test_its_files_are_each_named_once(vqa: Path) -> None:
    questions = open_questions(vqa / QUESTIONS)
    images = [vqa / "val2014" / f"COCO_val2014_{image_id:012d}.jpg" for image_id in (42, 73)]
    assert list(questions.files()) == [vqa / QUESTIONS, vqa / ANNOTATIONS, *images]


def test_ids_that_several_questions_or_annotations_have(vqa: Path) -> None:
    """The last one's answers were taken for all."""
    content = json.loads((vqa / QUESTIONS).read_text())
    content["questions"].append({"question_id": 42001, "image_id": 73, "question": "Is it new?"})
    (vqa / QUESTIONS).write_text(json.dumps(content))
    told = [annotated(42000, TEN), annotated(42001, ["no"] * 10), annotated(73000, ["2"]), annotated(73000, ["3"])]
    (vqa / ANNOTATIONS).write_text(json.dumps({"annotations": told}))
    found = read(open_questions(vqa / QUESTIONS))
    assert isinstance(found[0], Question)
    twice = "42001: 2 questions have this id"
    assert found[1:] == [twice, "73000: 2 annotations have this id", twice]


def test_images_of_questions_are_found_though_the_first_is_missing(vqa: Path) -> None:
    (vqa / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
    first, _, third = read(open_questions(vqa / QUESTIONS))
    assert "is not there" in str(first)
    assert isinstance(third, Question)
