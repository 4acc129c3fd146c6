"""The same comparison on COCO's captions, VQA v2's questions and Animals with Attributes 2, as they are published."""

import json
from pathlib import Path

import pytest

from limber_interp.datasets import read_folder
from limber_interp.errors import InputError
from limber_interp.evaluation.attributes import AnimalAttributes
from limber_interp.evaluation.comparison import compare
from limber_interp.evaluation.comparison.words import measure_attributes


@pytest.fixture
def published(folder: Path, tmp_path: Path) -> Path:
    """The nine images under COCO's names, with captions and with questions that ten people answered."""
    root = tmp_path / "published"
    (root / "val2014").mkdir(parents=True)
    examples = read_folder(folder)
    images, captions, questions, annotations = [], [], [], []
    for i, example in enumerate(examples):
        name = f"COCO_val2014_{i:012d}.jpg"
        (root / "val2014" / name).write_bytes(Path(example.image).read_bytes())
        images.append({"id": i, "file_name": name})
        captions += [{"image_id": i, "caption": caption} for caption in example.captions]
        questions.append({"image_id": i, "question": "What is it?", "question_id": 10 * i})
        ten = [{"answer": "dog" if person < 2 else "boat"} for person in range(10)]
        annotations.append({"image_id": i, "question_id": 10 * i, "answer_type": "other", "answers": ten})
    for file, content in {
        "captions_val2014.json": {"images": images, "annotations": captions},
        "v2_OpenEnded_mscoco_val2014_questions.json": {"data_subtype": "val2014", "questions": questions},
        "v2_mscoco_val2014_annotations.json": {"data_subtype": "val2014", "annotations": annotations},
    }.items():
        (root / file).write_text(json.dumps(content))
    return root


def test_coco_and_vqa(world, published: Path, tmp_path: Path) -> None:
    record = compare(
        [world.config()],
        published / "captions_val2014.json",
        ("caption", "vqa"),
        images=published / "val2014",
        questions=published / "v2_OpenEnded_mscoco_val2014_questions.json",
        annotations=published / "v2_mscoco_val2014_annotations.json",
        question_images=published / "val2014",
        shots=(0, 2),
        out=tmp_path / "out",
        max_new_tokens=4,
    )
    assert record is not None
    assert len(record.images) == len(record.questions) == 9
    assert record.images[0].references == ("A picture of a dog on the grass.",)
    assert record.questions[0].references == ("dog", "dog", *["boat"] * 8)
    for entry in record.entries:
        assert record.score(entry.name, "cider_d") is not None
        assert {s.group for s in record.scores if s.metric == "vqa_2" and s.by} == {"other"}


def test_captions_and_questions_each_have_their_folder_of_images(world, published: Path, tmp_path: Path) -> None:
    """--images served both, so that only one of two data sets could lie elsewhere."""
    for name in ("captions_val2014.json", "v2_OpenEnded_mscoco_val2014_questions.json"):
        (published / name).rename(tmp_path / name)
    annotations = published / "v2_mscoco_val2014_annotations.json"
    questions = {"questions": tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", "annotations": annotations}
    asked = ([world.config()], tmp_path / "captions_val2014.json", ("vqa",))
    with pytest.raises(InputError, match="captions_val2014.json: its images .*; name their folder with --images"):
        compare(*asked, out=tmp_path / "out", question_images=published / "val2014", **questions)
    with pytest.raises(InputError, match="questions.json: its images .*; name their folder with --question-images"):
        compare(*asked, out=tmp_path / "out", images=published / "val2014", **questions)
    (tmp_path / "elsewhere").symlink_to(published / "val2014")
    record = compare(
        *asked, out=tmp_path / "out", images=published / "val2014", question_images=tmp_path / "elsewhere", shots=(0,),
        max_questions=2, **questions,
    )  # fmt: skip
    assert record is not None
    assert record.images[0].image.startswith(str(published))
    assert record.questions[0].image.startswith(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("option", ["question_images", "annotations"])
def test_a_folder_or_answers_of_questions_that_are_not_named(world, folder: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} {folder}: of VQA's questions, and none are named"):
        compare([world.config()], folder, out=tmp_path / "out", **{option: folder})


def test_attributes_of_animals_named_in_error(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1\tdog\n2\tcat\n3\twhale\n")
    (tmp_path / "predicates.txt").write_text("1\tpaws\n2\tswims\n3\tbig\n4\tfurry\n")
    (tmp_path / "predicate-matrix-binary.txt").write_text("1 0 0 1\n1 0 0 1\n0 1 1 0\n")
    animals = AnimalAttributes.read(tmp_path)
    references = [["a dog"], ["a dog"], ["a whale"]]
    measured = measure_attributes([["a cat", "a whale", "a whale"], ["a dog", "a cat", "a dog"]], references, animals)
    # Cat for dog: both have paws and fur, and nothing else; whale for dog, dog for whale: nothing; a right one: none
    assert measured.sample.values[0].tolist()[:2] == [1, 0]
    assert measured.sample.values[1].tolist()[1:] == [1, 0]
    assert measured.sample.values[0][2] != measured.sample.values[0][2], "no animal in error"
    # A wrong animal drawn at random for the dog: cat 1, whale 0
    assert measured.chance is not None
    assert measured.chance[0] == pytest.approx(0.5)
