"""Finding words and phrases in captions: of the emoji world, and of tagged captions."""

import json
import random
from pathlib import Path

import nltk.data
import numpy as np
import pytest
from nltk.tag import PerceptronTagger

from experiments.emoji_world.corpus import caption
from experiments.emoji_world.world import BACKGROUNDS, CATEGORY_OF, RELATIONS, SIZES, sample_scene
from limber_interp.errors import InputError
from limber_interp.evaluation.lexicon import Entry, Lexicon, tokens
from limber_interp.evaluation.taxonomy import Taxonomy

# Captions with their parts of speech, enough for a tagger to learn these words. "orange" is both, twice a noun
TAGGED = [
    "two/CD dogs/NNS on/IN top/NN of/IN the/DT orange/JJ car/NN",
    "a/DT man/NN with/IN an/DT orange/NN next/JJ to/IN a/DT dog/NN",
    "a/DT dog/NN eating/VBG an/DT orange/NN that/IN is/VBZ big/JJ",
    "a/DT big/JJ man/NN near/IN a/DT car/NN",
]


def found(lexicon: Lexicon, text: str) -> list[str]:
    return [entry.word for entry in lexicon.find(text)]


def test_tokens() -> None:
    assert tokens("A dog's T-shirt, (on 2 cats)!") == ["a", "dog's", "t-shirt", "on", "2", "cats"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A piñata!", ["a", "piñata"]),
        ("A pin\u0303ata!", ["a", "piñata"]),  # as two characters, a letter and a tilde to be set over it
        ("CRÈME BRÛLÉE", ["crème", "brûlée"]),
        ("the dog’s t‑shirt", ["the", "dog's", "t-shirt"]),
        ("ein süßes Kätzchen", ["ein", "süßes", "kätzchen"]),
        ("собака и 2 кошки", ["собака", "и", "2", "кошки"]),
        ("m\u0303a", ["m\u0303a"]),  # no letter of Unicode, and still one word
        ("a_b \u0301c ❤\ufe0f d--e 'f'", ["a", "b", "c", "d", "e", "f"]),
    ],
)
def test_words_with_accents_are_whole(text: str, words: list[str]) -> None:
    """`piñata` was cut into `pi` and `ata`, and so counted as no noun, or as others."""
    assert tokens(text) == words


def test_a_word_with_accents_is_found_however_it_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    groups = {"nouns": {"toy": ["pin\u0303ata", "Café"]}, "modifiers": {"colour": ["red"]}, "relations": {"at": ["on"]}}
    path.write_text(json.dumps(groups))
    lexicon = Lexicon.read(path)
    assert found(lexicon, "Two piñatas on a red pin\u0303ata") == ["piñata", "on", "red", "piñata"]
    assert found(lexicon, "a CAFÉ") == ["café"]
    assert found(lexicon, "pi ata cafe") == []
    assert Taxonomy.read(path).wu_palmer("piñata", "café") == 2 * 2 / (3 + 3)


def test_words_of_the_emoji_world_are_those_of_its_captions() -> None:
    lexicon = Lexicon.read()
    rng = np.random.default_rng(0)
    for scene in (sample_scene(rng, held_out=None) for _ in range(300)):
        held = list(lexicon.find(caption(scene)))
        assert [entry.word for entry in held if entry.kind == "nouns"] == list(scene.nouns)
        assert [entry.category for entry in held if entry.kind == "nouns"] == list(scene.categories)
        assert [entry.word for entry in held if entry.kind == "modifiers"] == [*scene.sizes, scene.background]
        relations = [entry.word.split()[0] for entry in held if entry.kind == "relations"]
        assert relations == ([scene.relation] if scene.relation else [])
    assert {entry.kind for entry in lexicon.entries.values()} == {"nouns", "modifiers", "relations"}
    assert len(lexicon.entries) == len(CATEGORY_OF) + len(SIZES) + len(BACKGROUNDS) + len(RELATIONS)


def test_phrases_and_plurals() -> None:
    entries = [
        Entry("nouns", "bear", "animal"), Entry("nouns", "polar bear", "animal"), Entry("nouns", "top", "clothing"),
        Entry("relations", "on", "place"), Entry("relations", "on top of", "place"),
    ]  # fmt: skip
    lemma = Taxonomy.of_tree({"animal": ["bear", "polar bear"]}).lemma
    lexicon = Lexicon({entry.word: entry for entry in entries}, lemma)
    assert found(lexicon, "Polar bears on top of a bear.") == ["polar bear", "on top of", "bear"]
    written = [phrase for phrase, _ in lexicon.phrases("Polar bears on top of a bear.")]
    assert written == ["polar bears", "on top of", "bear"]
    assert found(lexicon, "A bear on top, polar.") == ["bear", "on", "top"]
    assert found(lexicon, "on top") == ["on", "top"]
    assert found(lexicon, "") == []


def test_categories_as_words() -> None:
    coarse = Lexicon.read().coarse()
    assert found(coarse, "a big owl left of a small dog on the sand") == [
        "size", "bird", "horizontal", "size", "animal", "background"
    ]  # fmt: skip


def test_a_word_of_two_kinds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    groups = {"nouns": {"fruit": ["orange"]}, "modifiers": {"colour": ["orange"]}, "relations": {"place": ["on"]}}
    path.write_text(json.dumps(groups))
    with pytest.raises(InputError, match=f"{path}: 'orange' is in two groups, fruit and colour"):
        Lexicon.read(path)


@pytest.fixture(scope="module")
def tagger() -> PerceptronTagger:
    """nltk's own tagger, which has learnt the captions above."""
    tagger = PerceptronTagger(load=False)
    random.seed(0)  # of the order of its lessons
    tagger.train([[tuple(word.split("/")) for word in line.split()] for line in TAGGED] * 5, nr_iter=10)
    return tagger


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return Taxonomy.of_tree({"animal": ["dog"], "person": ["man"], "thing": ["car", "orange"]})


def plain(line: str) -> str:
    return " ".join(word.split("/")[0] for word in line.split())


def test_words_of_captions_by_part_of_speech(tagger: PerceptronTagger, taxonomy: Taxonomy) -> None:
    lexicon = Lexicon.of_captions([plain(line) for line in TAGGED], taxonomy, tagger.tag)
    by_kind = {
        kind: {entry.word for entry in lexicon.entries.values() if entry.kind == kind}
        for kind in ("nouns", "modifiers", "relations")
    }
    # "top" is no noun of the taxonomy, "of" and "that" are no relations, "orange" is a noun two times of three
    assert by_kind["nouns"] == {"dog", "man", "car", "orange"}
    assert by_kind["modifiers"] == {"big", "next"}
    assert {word for word in by_kind["relations"] if " " not in word} == {"on", "with", "near", "to"}
    assert found(lexicon, plain(TAGGED[0])) == ["dog", "on top of", "orange", "car"]
    assert found(lexicon, plain(TAGGED[1])) == ["man", "with", "orange", "next to", "dog"]
    assert lexicon.entries["dog"].category == "animal"


def test_the_installed_tagger_is_the_default(
    tagger: PerceptronTagger, taxonomy: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    captions = [plain(line) for line in TAGGED]
    with pytest.raises(InputError, match="tagging captions: .* nltk.downloader averaged_perceptron_tagger_eng"):
        Lexicon.of_captions(captions, taxonomy)
    folder = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    folder.mkdir(parents=True)
    for name, part in zip(tagger.param_files(), tagger.encode_json_obj(), strict=True):
        (folder / name).write_text(json.dumps(part))
    expected = Lexicon.of_captions(captions, taxonomy, tagger.tag)
    assert Lexicon.of_captions(captions, taxonomy).entries == expected.entries
