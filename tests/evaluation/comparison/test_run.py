import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import nltk.data
import numpy as np
import pytest
from PIL import Image

import limber_interp
from limber_interp.datasets import read_folder
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison import TASKS, compare
from limber_interp.records import Comparison
from tests.evaluation.test_taxonomy import SYNSETS, write_wordnet

ENTRIES = ["clip", "nfresnet", "blind", "mean image"]


def test_everything_side_by_side(run, world, asked: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "out", TASKS)
    assert [entry.name for entry in record.entries] == ENTRIES
    assert [entry.kind for entry in record.entries] == ["trained", "trained", "control", "control"]
    assert len(record.images) == 9
    assert {metric.task for metric in record.metrics} == set(TASKS)
    model = limber_interp.load(world.config("clip"))
    example = read_folder(asked)[3]
    assert record.images[3].key == example.key
    # From float16 encodings, and in a batch
    assert record.images[3].captions["clip"] == model.caption(example.image, max_new_tokens=5)
    for name in ("blind", "mean image"):
        assert len({image.captions[name] for image in record.images}) == 1
    assert record.images[0].captions["blind"] == model.vocabulary.text(model.generate(["A picture of"], 5)[0]).strip()

    assert len(record.questions) == 18
    assert record.questions[1].answers["blind"].keys() == {"0", "1"}
    score = record.score("clip", "vqa_1")
    told = [question.accuracy["clip"]["1"] for question in record.questions]
    assert score.estimate.value == pytest.approx(np.mean(told))
    assert score.estimate.n == 9  # images, not questions
    assert record.groups("vqa_1", "kind") == ("what", "where")
    assert len([contrast for contrast in record.contrasts if contrast.metric == "cider_d"]) == 4 * 3 / 2
    value = record.score("nfresnet", "cider_d").estimate.value
    assert value == pytest.approx(record.per_image["cider_d"][1].mean())

    assert record.score("clip", "effective_rank_encoding").estimate.value > 0
    assert record.score("blind", "effective_rank_encoding") is None
    assert {s.measure for s in record.similarities} == {"linear CKA", "nearest-neighbour overlap"}
    assert any("probe of colour" in note for note in record.notes)  # three images of each
    assert any("no CLIP was named" in note for note in record.notes)
    assert record.images[0].seen.shape == (64, 64, 3)

    record.save(tmp_path / "record.npz")
    assert Comparison.load(tmp_path / "record.npz").to_json() == record.to_json()


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_stopped(run, tmp_path: Path) -> None:
    tasks = ("caption", "vqa")
    whole = run(tmp_path / "whole", tasks)
    seen: list[str] = []

    def stop_in_the_third_batch(items: Iterable, description: str) -> Iterator:
        for item in items:
            if description.startswith("nfresnet: captions"):
                seen.append(description)
                if len(seen) == 3:
                    raise Interrupted
            yield item

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        run(out, tasks, progress=stop_in_the_third_batch)
    part = out / "results.part-0.jsonl"
    lines = part.read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["entry"], last["task"], last["index"]) == ("nfresnet", "caption", 7)
    # A line that is torn is dropped; what stands there is not said again
    part.write_text("\n".join(lines[:-1]) + "\n" + lines[-1].replace(last["text"], "kept")[:-4])
    changed = json.loads(lines[1])
    part.write_text(part.read_text().replace(lines[1], json.dumps({**changed, "text": "as it was said"})))
    again = run(out, tasks)
    assert again.images[0].captions["clip"] == "as it was said"
    assert again.images[7].captions == whole.images[7].captions

    text = (out / "results.jsonl").read_text().replace('"as it was said"', json.dumps(changed["text"]))
    assert text == (tmp_path / "whole/results.jsonl").read_text()
    (out / "results.jsonl").write_text(text)
    assert run(out, tasks).to_json() == whole.to_json()
    assert sorted(path.name for path in out.iterdir()) == ["encodings", "results.jsonl"]


def test_tasks_may_be_added(run, tmp_path: Path) -> None:
    captions = run(tmp_path / "out", ("caption",))
    both = run(tmp_path / "out", ("caption", "vqa"))
    assert [image.captions for image in both.images] == [image.captions for image in captions.images]
    answers = run(tmp_path / "out", ("vqa",))
    assert [q.answers for q in answers.questions] == [q.answers for q in both.questions]
    assert answers.images[0].captions == {}


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"prompt": "The"}, 'caption.prompt was "A picture of", now "The"'),
        ({"max_new_tokens": 3}, "caption.max_new_tokens was 5, now 3"),
        ({"max_images": 8}, "data.images was 9, now 8"),
    ],
)
def test_results_of_another_run(run, tmp_path: Path, other, line: str) -> None:
    run(tmp_path / "out")
    with pytest.raises(InputError, match=f"results of another run: {line}; name another folder"):
        run(tmp_path / "out", **other)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(run, world, asked: Path, tmp_path: Path) -> None:
    one = run(tmp_path / "one", ("caption", "vqa"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "limber_interp.compare_encoders", str(world.config("clip")), str(world.config("nfresnet"))]
    options = {
        "--data": asked, "--out": tmp_path / "two", "--tasks": "caption,vqa", "--max-new-tokens": 5, "--shots": "0,1",
        "--batch-size": 4, "--json": tmp_path / "two.json",
    }  # fmt: skip
    args = [str(text) for pair in options.items() for text in pair]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launcher, *command, *args], check=True, env=environment, capture_output=True)
    assert (tmp_path / "two/results.jsonl").read_bytes() == (tmp_path / "one/results.jsonl").read_bytes()
    assert json.loads((tmp_path / "two.json").read_text()) == json.loads(one.to_json())


def test_what_cannot_be_used_is_left_out_for_all(run, asked: Path, tmp_path: Path) -> None:
    (asked / "images/004.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 9 examples cannot be used, more than --max-rejected 1%"):
        run(tmp_path / "strict", ("caption", "vqa"))
    record = run(tmp_path / "out", ("caption", "vqa"), max_rejected=0.5)
    assert [image.key for image in record.images] == [f"{i // 5}/{i:03d}" for i in range(9) if i != 4]
    assert len(record.questions) == 16
    assert record.rejected == ("0/004: not an image that Pillow can open",)


def coco(folder: Path, files: list[str], captions: list[str]) -> Path:
    path = folder / "captions.json"
    rows = [{"id": i, "file_name": file} for i, file in enumerate(files)]
    told = [{"image_id": i, "caption": caption} for i, caption in enumerate(captions)]
    path.write_text(json.dumps({"images": rows, "annotations": told}))
    return path


def test_questions_on_other_images(world, asked: Path, tmp_path: Path) -> None:
    """Two images are captioned, nine are asked about; each is encoded once, whichever task needs it."""
    captioned = coco(asked, ["images/000.png", "images/002.png"], ["A dog.", "A cat."])
    record = compare([world.config()], captioned, ("caption", "vqa"), out=tmp_path / "out", questions=asked, shots=(1,))
    assert [image.key for image in record.images] == ["0", "1"]
    assert len({question.image for question in record.questions}) == 9
    assert record.score("clip", "vqa_1").estimate.n == 9
    counts = [json.loads(path.read_text())["kept"] for path in (tmp_path / "out/encodings").glob("*/manifest.json")]
    assert sorted(counts) == [2, 7]


def test_one_image_has_nothing_to_be_compared_over(world, asked: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 usable images; a comparison takes two or more"):
        compare([world.config()], coco(asked, ["images/000.png"], ["A dog."]), ("probe",), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"max_images": 1}, "max_images 1: a comparison takes two or more"),
        ({"tasks": ("captions",)}, "task 'captions' is unknown; nearest: caption"),
        ({"tasks": ()}, "no task: choose some of caption"),
        ({"tasks": ("vqa",), "shots": (-1,)}, "shots -1: expected numbers from 0 on"),
        ({"tasks": ("vqa",), "shots": (9,)}, "9 shots need as many other images"),
        ({"tasks": ("vqa",), "shots": (7,)}, "7 shots with 4 positions per image"),
        ({"batch_size": 0}, "batch_size 0: expected at least 1"),
        ({"max_questions": 0}, "max_questions 0: expected at least 1"),
        ({"words": "nowhere.json", "tasks": ("categories",)}, "nowhere.json: no groups of words"),
        ({"clip": "ViT-B-32"}, "CLIP ViT-B-32: neither a folder nor architecture:weights"),
    ],
)
def test_bad_settings(run, tmp_path: Path, settings, line: str) -> None:
    with pytest.raises(InputError, match=line):
        run(tmp_path / "out", **settings)


def test_images_without_captions(world, asked: Path, tmp_path: Path) -> None:
    captioned = coco(asked, [f"images/00{i}.png" for i in (0, 2, 4)], [])
    with pytest.raises(InputError, match=r"3 of 3 examples cannot be used.*the first: 0: no caption"):
        compare([world.config()], captioned, ("caption",), out=tmp_path / "out")


def test_by_default_the_tasks_are_those_that_the_data_can_serve(
    world, asked: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COCO's captions ended with "no questions in it", as answering questions was among the tasks whatever the data."""
    captioned = coco(asked, [f"images/00{i}.png" for i in (0, 2, 4)], ["A dog.", "A cat.", "A car."])
    settings = {"out": tmp_path / "out", "max_new_tokens": 2, "shots": (1,)}
    record = compare([world.config()], captioned, words=words, **settings)
    assert record is not None
    assert record.tasks == ("caption", "categories", "properties", "probe")
    no_questions = f"{captioned}: captions have no questions beside them; name some with --questions"
    assert f"the task vqa is left out: {no_questions}" in record.notes
    with pytest.raises(InputError, match=no_questions):
        compare([world.config()], captioned, TASKS, words=words, **settings)
    with pytest.raises(InputError, match="nowhere: not there; expected VQA v2's questions"):
        compare([world.config()], captioned, words=words, questions="nowhere", **settings)

    # The same of words, where there is nothing that knows them. What was said stays; of it more is measured
    monkeypatch.setattr(nltk.data, "path", [])
    record = compare([world.config()], captioned, questions=asked, **settings)
    assert record is not None
    assert record.tasks == ("caption", "probe", "vqa")
    no_words = "WordNet: nltk's `wordnet` is not there; run `python -m nltk.downloader wordnet`"
    for task in ("categories", "properties"):
        assert f"the task {task} is left out: {no_words}" in record.notes
    for asked_for in ({"tasks": ("categories",)}, {"wordnet": tmp_path}, {"attributes": tmp_path}):
        with pytest.raises(InputError, match="WordNet: "):
            compare([world.config()], captioned, **asked_for, **settings)


def test_a_folder_without_questions_is_not_asked(world, folder: Path, words: Path, tmp_path: Path) -> None:
    record = compare([world.config()], folder, out=tmp_path / "out", words=words, max_new_tokens=2, max_images=3)
    assert record is not None
    assert "vqa" not in record.tasks
    (note,) = (note for note in record.notes if note.startswith("the task vqa"))
    assert f'{folder}: no question with an answer: has no metadata["questions"] with answers' in note


def test_captions_without_words_are_left_out_before_the_work(world, asked: Path, tmp_path: Path) -> None:
    """They were refused by the metric, after everything had been captioned, and as "image 1"; and once they were mended
    all that was captioned was another run's."""
    captioned = coco(
        asked,
        [f"images/00{i}.png" for i in (0, 2, 4, 6, 8)],
        ["A picture of a dog.", " … !!!", "A cat.", "A bus.", "A"],
    )
    settings = {"max_new_tokens": 2, "prompt": "A"}
    with pytest.raises(
        InputError, match=rf"{captioned}: 2 of 5 examples cannot be used.*1: no word in its captions \['… !!!'"
    ):
        compare([world.config()], captioned, ("caption",), out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
    record = compare([world.config()], captioned, ("caption",), out=tmp_path / "out", max_rejected=0.5, **settings)
    assert record is not None
    assert [image.key for image in record.images] == ["0", "2", "3"]
    # Where it is the prompt alone, it says nothing either
    assert record.rejected == ("1: no word in its captions ['… !!!']", "4: no word in its captions ['A']")
    assert record.score("clip", "cider_d") is not None


def test_what_would_stop_the_work_later_on_stops_it_at_once(run, asked: Path, tmp_path: Path) -> None:
    """Before any caption is said: a question that is too long was found in its own batch, after all captions, and an
    empty prompt when the entry without an image had its turn."""
    with pytest.raises(InputError, match="image, prompt and 122 new tokens take 1.. positions, .* has 128; ask for"):
        run(tmp_path / "out", max_new_tokens=122)
    with pytest.raises(InputError, match="prompt"):
        run(tmp_path / "out", prompt="")
    last = sorted((asked / "image_data").glob("*/*.json"))[-1]
    content = json.loads(last.read_text())
    content["metadata"]["questions"][0]["question"] = "What is it? " * 40
    last.write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 shots with 4 positions per image: the longest prompt takes"):
        run(tmp_path / "out", ("caption", "vqa"))
    assert not (tmp_path / "out/results.jsonl").exists()


def test_without_a_tagger_it_stops_at_once(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WordNet was looked for before the work, and what finds the nouns in captions after it."""
    monkeypatch.setattr(nltk.data, "path", [])
    write_wordnet(tmp_path / "corpora/wordnet", SYNSETS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nltk leaves its files open
        with pytest.raises(InputError, match="tagging captions: nltk's `averaged_perceptron_tagger_eng` is not there"):
            run(tmp_path / "out", ("categories",), words=None, wordnet=tmp_path)
        gc.collect()
    assert not (tmp_path / "out").exists()


def test_no_answers(world, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no metadata\\["questions"\\] with answers'):
        compare([world.config()], folder, ("vqa",), out=tmp_path / "out")


def test_a_projection_that_does_not_fit(world, asked: Path, tmp_path: Path) -> None:
    """It shows before anything is said, even where it is the last one's."""
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(world.config("beit").read_text().replace("projections/beit", "projections/clip"))
    with pytest.raises(InputError, match="projection"):
        compare([world.config(), wrong], asked, ("caption",), out=tmp_path / "out")
    assert not (tmp_path / "out/results.jsonl").exists()


def test_the_shipped_suite(tmp_path: Path) -> None:
    """CLIP names what is there, its random twin and the blind run do not; the random ones come of themselves."""
    record = compare(["emoji_clip_linear"], tasks=("caption", "categories"), out=tmp_path / "out", dtype="float32")
    names = [entry.name for entry in record.entries]
    assert names == [
        "emoji_clip_linear", "emoji_beit_random_linear", "emoji_nfrn_random_linear", "blind", "mean image",
    ]  # fmt: skip
    assert len(record.images) == 24
    recall = {name: record.score(name, "noun_recall").estimate for name in names}
    assert recall["emoji_clip_linear"].low > recall["blind"].high
    assert record.best("clip_score") == "emoji_clip_linear"
    better = [c for c in record.significant() if (c.metric, c.first, c.second) == ("cider_d", names[0], "blind")]
    assert len(better) == 1
    with Image.open(record.images[0].image) as image:
        assert record.images[0].seen.shape == (image.height, image.width, 3)
