"""How well captions agree with what people wrote: CIDEr-D, BLEU-4 and ROUGE-L, as the COCO evaluation computes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from limber_interp.errors import InputError
from limber_interp.evaluation.metrics.tokenizing import tokenize


@dataclass(frozen=True)
class CaptionMetrics:
    """Of each caption, in the units of the COCO evaluation; papers print them times 100.

    Attributes:
        values: `cider_d` from 0 to 10; `bleu_4` and `rouge_l` from 0 to 1.
        corpus_bleu_4: over the counts of all captions together, which is what papers report. The mean of the single
            ones is another number: a caption with no 4-gram of its references' has nearly 0, whatever else it has.
        tokenizer: `ptb` (Stanford's, by Java) or `python`.
    """

    values: dict[str, Float[np.ndarray, " n"]]
    corpus_bleu_4: float
    tokenizer: str


def caption_metrics(
    told: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = "auto"
) -> CaptionMetrics:
    """CIDEr-D, BLEU-4 and ROUGE-L of one caption per image against that image's references.

    - CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726, equations 2, 4 and 5): for n = 1 to 4 the cosine between the
      n-gram counts, each count weighted by how rare the n-gram is among images, clipped at the reference's, and
      discounted by exp(-difference of lengths² / 2·6²); the mean over n and references, times 10. **An n-gram's rarity
      is the log of the share of images whose references have it, over all images that are given: a caption's value
      depends on the set.** Compare models on the same images only, and a part of them by picking from these values, not
      by computing again.
    - BLEU-4 (Papineni et al. 2002): geometric mean of the clipped n-gram precisions, n = 1 to 4, with the brevity
      penalty against the reference of the nearest length.
    - ROUGE-L (Lin 2004): the longest common subsequence; F-score with β = 1.2 of the best precision and the best recall
      over the references.

    All three reward the words of the references: a right caption in other words is punished, and one of the right
    length and style about another image is not worth nothing, so read them beside the caption of a blind model.

    Args:
        told: one caption per image; one without a word scores 0.
        references: what people wrote of each image; one or more. Those without a word are left out, or to say nothing
            would be as right as can be.
        tokenizer: see `tokenize`.

    Raises:
        InputError: fewer than two images (each n-gram is then in all images, and CIDEr-D is 0 by construction), not as
            many captions as lists of references, an image whose references have no word, or see `tokenize`.
    """
    _check(told, references)
    words, used = tokenize([*told, *(text for of_image in references for text in of_image)], tokenizer)
    remaining = iter(words)
    answers = {i: [next(remaining)] for i in range(len(told))}
    truth = {i: [text for text in islice(remaining, len(of_image)) if text] for i, of_image in enumerate(references)}
    if wordless := [i for i, of_image in truth.items() if not of_image]:
        raise InputError(
            f"image {wordless[0]}: no word in its references {list(references[wordless[0]])}; leave it out"
        )
    _, cider = Cider().compute_score(truth, answers)
    corpus, bleu = Bleu(4).compute_score(truth, answers, verbose=0)
    _, rouge = Rouge().compute_score(truth, answers)
    return CaptionMetrics(
        values={
            name: np.asarray(found, dtype=np.float64)
            for name, found in (("cider_d", cider), ("bleu_4", bleu[3]), ("rouge_l", rouge))
        },
        corpus_bleu_4=float(corpus[3]),
        tokenizer=used,
    )


def _check(told: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(told) != len(references):
        raise InputError(f"{len(told)} captions and references of {len(references)} images: expected as many of both")
    if len(told) < 2:
        raise InputError(
            f"caption metrics of {len(told)} images: give two or more, as CIDEr-D asks how few images have a word"
        )
    for i, of_image in enumerate(references):
        if isinstance(of_image, str):
            raise InputError(f"image {i}: found one text {of_image!r}, expected a list of references")
        if not of_image:
            raise InputError(f"image {i}: no references; give one or more, or leave the image out")
