"""What captions are measured with: words, how near nouns are, attributes of animals, and a CLIP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limber_interp.errors import InputError
from limber_interp.evaluation.attributes import AnimalAttributes
from limber_interp.evaluation.lexicon import Lexicon, Tagger, perceptron
from limber_interp.evaluation.metrics.clip_score import ClipScorer
from limber_interp.evaluation.taxonomy import Taxonomy
from limber_interp.resources import resolve, weights_dir


@dataclass(frozen=True)
class Yardsticks:
    """Opened before the work, so that what is missing shows at once.

    Attributes:
        taxonomy: None where no words are measured.
        lexicon: None: the words of the captions themselves, by part of speech.
        tag: finds the parts of speech, where there is no lexicon.
        notes: what is not measured, and why.
        left_out: tasks that cannot be served, and why.
    """

    taxonomy: Taxonomy | None
    lexicon: Lexicon | None
    attributes: AnimalAttributes | None
    clip: ClipScorer | None
    notes: tuple[str, ...]
    tag: Tagger | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def open(
        tasks: Sequence[str],
        lm: str,
        words: str | Path | None = None,
        wordnet: str | Path | None = None,
        attributes: str | Path | None = None,
        clip: str | Path | None = None,
        by_default: bool = False,
    ) -> "Yardsticks":
        """Those that the tasks need.

        Args:
            lm: name of the language model: the embedded suite's has words and a CLIP of its own.
            words: JSON with nouns, modifiers and relations in groups, instead of WordNet and parts of speech.
            wordnet: folder with nltk's data.
            attributes: folder of Animals with Attributes 2.
            clip: a folder, or `architecture:weights` as open_clip names them.
            by_default: nobody asked for just these tasks: one is left out where WordNet is not installed.

        Raises:
            InputError: something is not there.
        """
        notes = []
        left_out: dict[str, str] = {}
        tag = None
        own = resolve(lm).resolve() == (weights_dir() / "emoji" / "lm").resolve()
        taxonomy, lexicon = None, None
        if {"categories", "properties"} & set(tasks):
            if words is not None:
                taxonomy, lexicon = Taxonomy.read(words), Lexicon.read(words)
            elif own and wordnet is None:
                taxonomy, lexicon = Taxonomy.read(), Lexicon.read()
            else:
                try:
                    taxonomy, tag = Taxonomy.wordnet(wordnet), perceptron()
                except InputError as error:
                    if not by_default or wordnet is not None or attributes is not None:
                        raise
                    taxonomy = None
                    left_out = dict.fromkeys(sorted({"categories", "properties"} & set(tasks)), str(error))
        scorer = None
        if "caption" in tasks:
            if clip is not None:
                scorer, named = _clip(clip), str(clip)
            elif own:
                scorer = _clip(weights_dir() / "emoji" / "encoders" / "clip")
                named = "the embedded suite's own, which is also the encoder of emoji_clip_linear"
            if scorer is None:
                notes.append("no CLIPScore: no CLIP was named")
            else:
                notes.append(f"CLIPScore by {named}; sha256 {scorer.sha256[:12]}")
        animals = AnimalAttributes.read(attributes) if attributes is not None and "properties" in tasks else None
        return Yardsticks(taxonomy, lexicon, animals, scorer, tuple(notes), tag, left_out)


def _clip(clip: str | Path) -> ClipScorer:
    if Path(clip).is_dir():
        return ClipScorer.of_folder(clip)
    architecture, _, weights = str(clip).partition(":")
    if not weights:
        raise InputError(f"CLIP {clip}: neither a folder nor architecture:weights, such as ViT-B-32-quickgelu:openai")
    return ClipScorer.open_clip(architecture, weights)
