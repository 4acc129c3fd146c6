import json

import numpy as np
import pytest

from limber_interp.records import (
    ComparedImage,
    ComparedQuestion,
    Comparison,
    Contrast,
    Difference,
    Entry,
    Estimate,
    Manifest,
    Metric,
    Score,
    Similarity,
)

NAN = float("nan")


@pytest.fixture
def record() -> Comparison:
    manifest = Manifest({}, {"lm": "ab"}, "float32", "cpu", 0, {})
    metrics = (
        Metric("cider_d", "CIDEr-D", "caption", "points", 1, "n-grams", "another image's references", headline=True),
        Metric("loss", "loss", "caption", "nats", -1, "of the references"),
        Metric("anisotropy", "anisotropy", "probe", "cosine", 0, "mean cosine between images"),
    )
    scores = (
        Score("clip", "cider_d", Estimate(0.8, 0.6, 1.0, 2), 0.1),
        Score("clip", "cider_d", Estimate(0.9, 0.9, 0.9, 1), by="category", group="animal"),
        Score("clip", "cider_d", Estimate(1 / 3, 0.3, 0.4, 1), by="category", group="toy"),
        Score("blind", "cider_d", Estimate(0.1, 0.0, 0.2, 2), 0.1),
        Score("clip", "loss", Estimate(1.5, 1.0, 2.0, 2)),
        Score("blind", "loss", Estimate(1.0, 0.5, 1.5, 2)),
        Score("clip", "anisotropy", Estimate(0.5, NAN, NAN, 2)),
        Score("blind", "anisotropy", Estimate(NAN, NAN, NAN, 0)),
    )
    seen = np.full((4, 4, 3), 200, dtype=np.uint8)
    return Comparison(
        data="scenes",
        prompt="A picture of",
        seed=0,
        tasks=("caption", "vqa"),
        entries=(Entry("clip", "trained", "CLIP", manifest), Entry("blind", "control", "no image", manifest)),
        metrics=metrics,
        scores=scores,
        contrasts=(
            Contrast("cider_d", "clip", "blind", Difference(Estimate(0.7, 0.5, 0.9, 2), 0.01), 0.03),
            Contrast("loss", "clip", "blind", Difference(Estimate(0.5, -0.1, 0.9, 2), 0.04), 0.08),
        ),
        images=(
            ComparedImage("0/000", "a.png", ("a dog.",), {"clip": "a dog.", "blind": "a cat."}, seen, ("dog",)),
            ComparedImage("0/001", "b.png", ("a toy.",), {"clip": "a toy.", "blind": "a cat."}),
        ),
        per_image={"cider_d": np.array([[0.9, 1 / 3], [0.1, NAN]])},
        questions=(
            ComparedQuestion("0", "a.png", "What?", "what", ("a dog",), {"clip": {"0": "a dog"}}, {"clip": {"0": 1.0}}),
        ),
        shots=(0,),
        similarities=(Similarity("linear CKA", "encoding", ("clip",), np.ones((1, 1)), np.zeros((1, 1))),),
        rejected=("0/002: no caption",),
    )


def test_finding_scores(record):
    assert record.score("clip", "cider_d").estimate.value == 0.8
    assert record.score("clip", "cider_d", "category", "animal").estimate.value == 0.9
    assert record.score("clip", "cider_d", "category", "food") is None
    assert record.groups("cider_d", "category") == ("animal", "toy")
    assert [metric.name for metric in record.headlines] == ["cider_d"]
    with pytest.raises(KeyError):
        record.metric("bleu")


def test_the_best_is_by_the_metrics_direction(record):
    assert record.best("cider_d") == "clip"
    assert record.best("loss") == "blind"
    assert record.best("anisotropy") is None
    assert [d.metric for d in record.significant()] == ["cider_d"]
    assert [d.metric for d in record.significant(0.1)] == ["cider_d", "loss"]


def test_json_has_the_scores_by_image_and_no_pixels(record):
    values = json.loads(record.to_json())
    assert values["command"] == "compare_encoders"
    assert values["images"][1]["scores"] == {"clip": {"cider_d": 0.33333}, "blind": {"cider_d": None}}
    assert values["images"][0]["captions"] == {"clip": "a dog.", "blind": "a cat."}
    assert values["images"][0]["nouns"] == ["dog"]
    assert "per_image" not in values
    assert "seen" not in values["images"][0]
    assert values["scores"][2] == {
        "entry": "clip", "metric": "cider_d", "chance": None, "by": "category", "group": "toy",
        "value": 0.33333, "low": 0.3, "high": 0.4, "n": 1, "level": 0.95,
    }  # fmt: skip
    assert values["contrasts"][0]["first"] == "clip"
    assert (values["contrasts"][0]["value"], values["contrasts"][0]["p"]) == (0.7, 0.01)
    assert values["questions"][0]["answers"] == {"clip": {"0": "a dog"}}
    assert values["similarities"][0]["values"] == [[1.0]]
    assert values["rejected"] == ["0/002: no caption"]


def test_it_survives_the_disk(record, tmp_path):
    record.save(tmp_path / "comparison.npz")
    again = Comparison.load(tmp_path / "comparison.npz")
    assert again.to_json() == record.to_json()
    np.testing.assert_array_equal(again.images[0].seen, record.images[0].seen)
    assert again.images[1].seen is None
    np.testing.assert_array_equal(again.per_image["cider_d"], record.per_image["cider_d"])
