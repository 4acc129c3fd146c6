"""The embedded suite's own questions: those that the language model has read, with true answers."""

import json
import re
import shutil
from pathlib import Path

import numpy as np

from experiments.emoji_world.asked import add_questions, asked, main, scene_of
from experiments.emoji_world.corpus import questions
from experiments.emoji_world.world import Scene, sample_scene
from limber_interp.datasets.questions import open_questions
from limber_interp.resources import weights_dir

SCENES = weights_dir() / "emoji" / "scenes"


def pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(str(row["question"]), row["answers"][0]) for row in asked(scene)}


def test_all_that_can_be_asked_of_two_objects() -> None:
    found = asked(Scene(("owl", "dog"), ("big", "small"), "left", "snow"))
    assert [(row["kind"], row["question"], row["answers"]) for row in found] == [
        ("where", "Where is it?", ["in the snow"]),
        ("how many", "How many things are there?", ["two"]),
        ("size", "What size is the owl?", ["big"]),
        ("category", "What is the owl?", ["a bird"]),
        ("size", "What size is the dog?", ["small"]),
        ("category", "What is the dog?", ["an animal"]),
        ("relation", "What is left of the dog?", ["a owl"]),  # as the texts have it
        ("relation", "What is right of the owl?", ["a dog"]),
    ]
    one = asked(Scene(("owl",), ("big",), None, "snow"))
    assert [row["kind"] for row in one] == ["where", "how many", "size", "category", "what"]


def test_they_are_the_questions_of_the_language_models_texts() -> None:
    """Asked at random often enough, the texts hold each of them, and no other."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        scene = sample_scene(rng, held_out=None)
        texts = " ".join(questions(scene, rng) for _ in range(150))
        assert set(re.findall(r"Q: (.+?) A: (.+?)\.", texts)) == pairs(scene)


def test_the_bundled_scenes_have_them() -> None:
    found = open_questions(SCENES)
    assert {found[i].kind for i in range(len(found))} == {"where", "how many", "size", "category", "relation", "what"}
    for path in sorted((SCENES / "image_data").glob("*/*.json")):
        metadata = json.loads(path.read_text())["metadata"]
        assert metadata["questions"] == asked(scene_of(metadata))


def test_they_are_added_to_scenes_without_them(tmp_path: Path, capsys) -> None:
    shutil.copytree(SCENES, tmp_path / "scenes")
    bundled = {path: path.read_bytes() for path in sorted((tmp_path / "scenes").rglob("*")) if path.is_file()}
    for path in (tmp_path / "scenes" / "image_data").glob("*/*.json"):
        record = json.loads(path.read_text())
        del record["metadata"]["questions"]
        path.write_text(json.dumps(record))
    main([str(tmp_path / "scenes")])
    assert capsys.readouterr().out == f"{tmp_path / 'scenes'}: 24 scenes\n"
    assert {path: path.read_bytes() for path in bundled} == bundled
    assert add_questions(tmp_path / "scenes") == 24
    assert {path: path.read_bytes() for path in bundled} == bundled, "a second time changes nothing"
