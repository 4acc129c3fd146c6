import json
import shutil
import socket
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from limber_interp.datasets import read_folder
from limber_interp.errors import InputError
from limber_interp.evaluation.metrics.clip import WordTokenizer
from limber_interp.evaluation.metrics.clip_score import ClipScorer, clip_score, ref_clip_score
from limber_interp.images import load_image
from limber_interp.resources import example_image, weights_dir

SUITE = weights_dir() / "emoji" / "encoders" / "clip"


def unit(*rows: list[float]) -> torch.Tensor:
    return normalize(torch.tensor(rows), dim=-1)


# ---- the formulas


def test_clip_score_by_hand():
    images = unit([1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    told = unit([4.0, 3.0], [0.0, 2.0], [-1.0, 0.1])
    # cosines 4 / 5 and 0, and a negative one, which counts as 0
    torch.testing.assert_close(clip_score(images, told), torch.tensor([2.5 * 0.8, 0.0, 0.0]))


def test_ref_clip_score_by_hand():
    images, told = unit([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), unit([4.0, 3.0], [4.0, 3.0], [1.0, 0.0])
    references = [unit([1.0, 0.0], [0.0, 1.0]), unit([-1.0, 0.0]), unit([0.0, -1.0], [-1.0, 0.0])]
    # 2.5 · 0.8 = 2 with the image; the nearest reference has cosine max(0.8, 0.6), that of the second image -0.8
    first = 2 * 2.0 * 0.8 / (2.0 + 0.8)
    torch.testing.assert_close(ref_clip_score(images, told, references), torch.tensor([first, 0.0, 0.0]))


def test_one_caption_and_one_list_of_references_per_image():
    """A single caption would be held against every image."""
    two, one = unit([1.0, 0.0], [0.0, 1.0]), unit([1.0, 0.0])
    with pytest.raises(InputError, match="1 captions of 2 images: expected one per image"):
        clip_score(two, one)
    with pytest.raises(InputError, match="references of 1 images: expected those of 2"):
        ref_clip_score(two, two, [one])


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_bounds(seed, n):
    generator = torch.Generator().manual_seed(seed)
    images, told, references = (normalize(torch.randn(n, 3, generator=generator), dim=-1) for _ in range(3))
    of_image = clip_score(images, told)
    of_both = ref_clip_score(images, told, list(references.split(1)))
    assert ((of_image >= 0) & (of_image <= 2.5 + 1e-5)).all()
    assert ((of_both >= 0) & (of_both <= 10 / 7 + 1e-5)).all()
    one_of_three = ref_clip_score(images, told, [torch.cat([one, images]) for one in references.split(1)])
    assert (one_of_three >= of_both - 1e-6).all(), "a further reference never harms"


# ---- the embedded suite's CLIP


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer.of_folder(SUITE)


@pytest.fixture(scope="module")
def scenes() -> list:
    return read_folder(weights_dir() / "emoji" / "scenes")


def test_right_captions_score_above_those_of_other_scenes(scorer: ClipScorer, scenes):
    seen = scorer.images([scene.image for scene in scenes])
    told = [scene.captions[0] for scene in scenes]
    right = clip_score(seen, scorer.texts(told))
    wrong = torch.stack([clip_score(seen, scorer.texts(np.roll(told, k).tolist())) for k in range(1, len(scenes))])
    assert (right > wrong).float().mean() > 0.98
    assert (right > wrong.max(0).values).float().mean() > 0.9
    truth = scorer.references([scene.captions for scene in scenes])
    assert (ref_clip_score(seen, scorer.texts(told), truth) >= clip_score(seen, scorer.texts(told)) / 2).all()


def test_the_prefix_stands_before_what_lacks_it(scorer: ClipScorer):
    whole, rest, other = scorer.texts(["A picture of a dog.", "a dog", "a cat"])
    torch.testing.assert_close(whole, rest)
    assert whole @ other < 0.9
    bare = ClipScorer.of_folder(SUITE, prefix="")
    assert bare.texts(["a dog"])[0] @ rest < 0.999
    torch.testing.assert_close(bare.texts(["A picture of a dog."])[0], rest)


def test_vectors_do_not_depend_on_the_batch(scorer: ClipScorer, scenes):
    """open_clip gives its models in training mode, in which batch norms look at the whole batch."""
    images = [scene.image for scene in scenes[:5]]
    together = scorer.images(images)
    torch.testing.assert_close(scorer.images(images, batch_size=2), together, atol=1e-4, rtol=0)
    for work in (lambda: scorer.images(images, batch_size=-1), lambda: scorer.texts(["a"], batch_size=0)):
        with pytest.raises(InputError, match="batch_size .*: expected at least 1"):
            work()
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(5))
    texts = ["a dog", "a cat", "a dog", "a bus"]
    torch.testing.assert_close(scorer.texts(texts, batch_size=2), scorer.texts(texts), atol=1e-5, rtol=0)
    one_by_one = [scorer.texts([text])[0] for text in texts]
    torch.testing.assert_close(torch.stack(one_by_one), scorer.texts(texts), atol=1e-5, rtol=0)


def test_one_image_of_any_kind(scorer: ClipScorer):
    """An array has a length, and a path is a sequence of letters: each was taken for several images."""
    picture = load_image(example_image())
    expected = scorer.images([picture])
    for image in (picture, np.asarray(picture), example_image(), str(example_image())):
        assert torch.equal(scorer.images(image), expected)


def test_references_stay_with_their_images(scorer: ClipScorer):
    found = scorer.references([["a dog", "a cat"], ["a bus"]])
    torch.testing.assert_close(found[0], scorer.texts(["a dog", "a cat"]))
    torch.testing.assert_close(found[1], scorer.texts(["a bus"]))


def test_unknown_words_are_counted_and_said(scorer: ClipScorer, caplog):
    texts = ["a blue dog!", "a Blue, <end> cat", ""]
    assert scorer.unknown(texts) == {"blue": 2, "end": 1}
    found = scorer.texts(texts)
    assert "3 words are unknown to it and left out: blue, end" in caplog.text
    torch.testing.assert_close(found[:2], scorer.texts(["a dog", "a cat"]))
    assert found.isfinite().all()


def test_word_tokenizer():
    tokenizer = WordTokenizer(["<pad>", "a", "dog", "grass", "<end>"], 5)
    assert tokenizer(["A dog.", "", "dog, grass a <pad>", "a a a a a a"]).tolist() == [
        [1, 2, 4, 0, 0],
        [4, 0, 0, 0, 0],
        [2, 3, 1, 4, 0],
        [1, 1, 1, 1, 4],  # cut, and ended all the same: the end is where the text tower is read
    ]


# ---- other CLIPs


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No connection, and nothing in the cache of the hub."""

    def refuse(*args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A tiny CLIP with CLIP's own tokenizer that open_clip knows by name, and a file of its weights."""
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "limber-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "limber-tiny.json")
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**config).state_dict(), folder / "weights.pt")
    return "limber-tiny", folder / "weights.pt"


def test_a_file_of_weights(architecture, images, offline):
    """Vectors as open_clip gives them by hand, behind the paper's prefix; and no connection."""
    name, weights = architecture
    scorer = ClipScorer.open_clip(name, weights)
    model, preprocess = open_clip.create_model_from_pretrained(name, str(weights))
    with torch.no_grad():
        seen = normalize(model.encode_image(torch.stack([preprocess(image) for image in images])), dim=-1)
        told = normalize(model.encode_text(open_clip.tokenize(["A photo depicts a dog", "A photo depicts "])), dim=-1)
    torch.testing.assert_close(scorer.images(images), seen)
    torch.testing.assert_close(scorer.images(torch.stack([preprocess(image) for image in images])), seen)
    torch.testing.assert_close(scorer.texts(["a dog", ""]), told)
    assert scorer.unknown(["xyzzy"]) == {}
    assert len(scorer.texts(["a dog " * 100])) == 1, "longer than the context: cut"
    assert scorer.sha256 == ClipScorer.open_clip(name, weights).sha256 != ClipScorer.of_folder(SUITE).sha256


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-23", "openai", "unknown CLIP 'ViT-B-23'; nearest: .*ViT-B-32"),
        ("ViT-B-32", "no/such.pt", "no file 'no/such.pt', and its pretrained tags are: openai, "),
        ("ViT-B-32", "openai", "'openai' was trained with other activations; name 'ViT-B-32-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_e16", "no file 'laion2b_e16'"),
        ("ViT-B-32-quickgelu", "openai", "weights cannot be had from openai"),
        (
            "limber-tiny",
            SUITE / "model.safetensors",
            "CLIP limber-tiny: its weights cannot be had from .*model.safetensors",
        ),
        (
            "limber-tiny",
            SUITE / "vocabulary.json",
            "CLIP limber-tiny: its weights cannot be had from .*vocabulary.json",
        ),
        ("ViT-B-16-SigLIP", SUITE / "model.safetensors", "its tokenizer would be downloaded"),
    ],
)
def test_bad_names_and_weights(name, pretrained, message, architecture, offline):
    with pytest.raises(InputError, match=message):
        ClipScorer.open_clip(name, pretrained)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the suite's CLIP, to be broken."""
    return Path(shutil.copytree(SUITE, tmp_path / "clip"))


def rewrite(file: Path, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_bad_folders(broken: Path, offline):
    config, vocabulary = broken / "open_clip_config.json", broken / "vocabulary.json"
    with pytest.raises(InputError, match="no/such/open_clip_config.json: no such file"):
        ClipScorer.of_folder("no/such")
    rewrite(vocabulary, lambda words: words.pop())
    with pytest.raises(InputError, match="vocabulary.json: expected a list of 122 words"):
        ClipScorer.of_folder(broken)
    vocabulary.write_text("{")
    with pytest.raises(InputError, match="vocabulary.json: cannot be read as JSON"):
        ClipScorer.of_folder(broken)
    vocabulary.unlink()
    with pytest.raises(InputError, match="its text tower has 122 tokens, and CLIP's tokenizer 49408"):
        ClipScorer.of_folder(broken)
    rewrite(config, lambda values: values["model_cfg"]["text_cfg"].update(hf_model_name="roberta-base"))
    with pytest.raises(InputError, match="text tower would be downloaded"):
        ClipScorer.of_folder(broken)
    rewrite(config, lambda values: values["model_cfg"].pop("text_cfg"))
    with pytest.raises(InputError, match="no text tower in it"):
        ClipScorer.of_folder(broken)


def test_a_folder_without_weights(broken: Path, offline):
    (broken / "model.safetensors").unlink()
    with pytest.raises(InputError, match="weights cannot be had"):
        ClipScorer.of_folder(broken)


def test_nothing_to_score(scorer: ClipScorer):
    with pytest.raises(InputError, match="no images to score"):
        scorer.images([])
    with pytest.raises(InputError, match="no texts to score"):
        scorer.texts([])
    with pytest.raises(InputError, match=r"image 1: expected a list of one or more references, found \[\]"):
        scorer.references([["a dog"], []])
    with pytest.raises(InputError, match="found 'a dog'"):
        scorer.references(["a dog"])
    with pytest.raises(InputError, match="no/such"):
        scorer.images(["no/such.png"])
