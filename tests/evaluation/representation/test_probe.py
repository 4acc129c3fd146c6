import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.evaluation.representation import POOLING, pool, probe
from limber_interp.evaluation.statistics import bootstrap, paired

N = 120


def planted(seed: int = 0) -> tuple[np.ndarray, list[str | None]]:
    """Noise in 300 dimensions, more than there are images, and one direction that tells cats from dogs."""
    random = np.random.default_rng(seed)
    is_cat = random.random(N) < 0.5
    features = random.normal(size=(N, 300))
    features += np.where(is_cat, 1, -1)[:, None] * random.normal(size=300) / 2
    return features.astype(np.float32), ["cat" if yes else "dog" for yes in is_cat]


def test_a_planted_direction_is_found_and_its_control_is_at_chance():
    features, labels = planted()
    found = probe(features, labels)
    assert found.classes == ("cat", "dog")
    assert found.majority == max(labels.count("cat"), labels.count("dog")) / N
    assert bootstrap(found.correct).low > 0.95
    controls = [probe(features, labels, seed).shuffled.mean() for seed in range(8)]
    assert np.mean(controls) == pytest.approx(0.5, abs=0.05)
    assert paired(found.correct, found.shuffled).p < 0.001


def test_noise_is_not_told_apart():
    """Far more features than images: each probe fits the images that it sees without a mistake."""
    _, labels = planted()
    found = probe(np.random.default_rng(1).normal(size=(N, 300)), labels)
    estimate = bootstrap(found.correct)
    assert estimate.low < 0.5 < estimate.high


def test_images_without_a_label_or_with_a_rare_one_have_no_answer():
    features, labels = planted()
    labels[3], labels[7:11] = None, ["axolotl"] * 4
    found = probe(features, labels)
    assert np.flatnonzero(np.isnan(found.correct)).tolist() == [3, 7, 8, 9, 10]
    assert np.flatnonzero(np.isnan(found.shuffled)).tolist() == [3, 7, 8, 9, 10]
    assert found.classes == ("cat", "dog")
    # The others are answered as if those were not there
    there = ~np.isnan(found.correct)
    alone = probe(features[there], [label for label, known in zip(labels, there, strict=True) if known])
    np.testing.assert_array_equal(alone.correct, found.correct[there])


def test_a_label_that_is_rare_is_in_every_fold():
    """Shuffled over all images, five of a kind could all fall into one fold, and the control would know one label."""
    features, _ = planted()
    labels = ["cat"] * (N - 5) + ["dog"] * 5
    for seed in range(5):
        assert probe(features, labels, seed).majority == (N - 5) / N


def test_the_seed_decides():
    features, labels = planted()
    features[:, :] += np.random.default_rng(2).normal(size=features.shape) * 4  # so that some answers are wrong
    first, again, other = (probe(features, labels, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.correct, again.correct)
    np.testing.assert_array_equal(first.shuffled, again.shuffled)
    assert (first.correct != other.correct).any()


def test_scaling_and_turning_features_up_to_their_standardisation_changes_nothing():
    features, labels = planted()
    features += 3 * np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    scales = np.geomspace(0.01, 100, 300, dtype=np.float32)
    np.testing.assert_array_equal(probe(features * scales + 7, labels).correct, probe(features, labels).correct)


def test_where_a_thing_is_cannot_be_read_off_a_mean():
    """One vector, at one of four positions: the mean over positions is the same wherever it is."""
    random = np.random.default_rng(0)
    place = random.integers(0, 4, N)
    vectors = random.normal(size=(N, 4, 16)).astype(np.float32)
    vectors[np.arange(N), place] += 2
    rows, labels = np.arange(N), [f"position {i}" for i in place]
    assert POOLING["position"] == "positions"
    by_mean = bootstrap(probe(pool(vectors.__getitem__, rows, "mean"), labels).correct)
    by_position = bootstrap(probe(pool(vectors.__getitem__, rows, POOLING["position"]), labels).correct)
    assert by_mean.low < 0.25 + 0.05
    assert by_position.low > 0.9


def test_too_few_labels_are_told():
    features, labels = planted()
    with pytest.raises(InputError, match="probe of size: needs two labels of at least 5 images each; found 1"):
        probe(features, ["big"] * (N - 4) + ["small"] * 4, what="size")
    with pytest.raises(InputError, match="probe of labels: 119 labels for 120 images"):
        probe(features, labels[1:])
