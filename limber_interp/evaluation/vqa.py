"""How right an answer is, as VQA counts it."""

import re
from collections.abc import Sequence

from limber_interp.arguments import several
from limber_interp.errors import InputError
from limber_interp.evaluation.spelling import spelt

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# In the order of their endings. Left out are those that are another word without the apostrophe: he'll, it's, we're
CONTRACTED = """
    ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't
    shan't shouldn't wasn't weren't won't wouldn't couldn't've hadn't've mightn't've shouldn't've wouldn't've
    could've might've must've not've should've they've we've what've where've who've would've you've he'd how'd it'd
    someone'd something'd there'd they'd where'd who'd you'd he'd've it'd've she'd've somebody'd've someone'd've
    something'd've there'd've they'd've we'd've who'd've you'd've how'll it'll somebody'll someone'll something'll
    they'll what'll who'll why'll you'll he's how's somebody's someone's that's there's what's when's where's who's
    why's there're they're what're why're you're ma'am o'clock 'twas 'ow's'at y'all y'all'll y'all'd've
"""
# One apostrophe forgotten, at whichever place: couldnt've and couldn'tve
CONTRACTIONS = {
    word[: match.start()] + word[match.end() :]: word for word in CONTRACTED.split() for match in re.finditer("'", word)
}


def normalise_answer(answer: str) -> str:
    """An answer as VQA compares them: lower case, without articles and punctuation, numbers to ten as digits, and
    contractions with their apostrophe (Antol et al. 2015, arXiv 1505.00468, and the rules published with the data).

    A mark becomes a space where it stands between letters everywhere, and nothing where one has a space beside it, or
    where the answer has a number with commas. A full stop goes unless a digit follows. Apostrophes and accents may be
    typed in any way: see `spelt`.
    """
    answer = " ".join(spelt(answer).split())
    commas = re.search(r"\d,\d", answer)
    plain = answer
    for mark in PUNCTUATION:
        loose = commas or f"{mark} " in answer or f" {mark}" in answer
        plain = plain.replace(mark, "" if loose else " ")
    words = re.sub(r"\.(?!\d)", "", plain).lower().split()
    numbered = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in numbered if word not in ARTICLES)


def vqa_accuracy(answer: str, answers: str | Sequence[str]) -> float:
    """VQA's accuracy (Antol et al. 2015; Goyal et al. 2017, arXiv 1612.00837), in [0, 1].

    Of the answers that ten people gave, each is left out once, and min(how many of the others said it / 3, 1) is
    averaged: said by none 0, by one 0.3, two 0.6, three 0.9, four or more 1. An answer of which nothing is left
    once it is normalised (`the`, `?`, none at all) is 0, also beside people of whose answers nothing is left.

    Both sides are normalised. The code published with VQA always normalises the answer, but of what people said it
    takes punctuation alone, and that only where they differ: there `two` is never right beside people who said `two`
    (`2` is compared with it), nor `a dog` beside `a dog`. Such questions count here, so that a mean is a little higher.

    Fewer than four answers could never make 1; they are taken as alternatives, one of which has to be given.

    Raises:
        InputError: there are no answers to compare with.
    """
    answers = several(answers)
    if not answers:
        raise InputError("no answers to compare with: accuracy needs at least one")
    given = normalise_answer(answer)
    if not given:
        return 0.0
    n_agree = sum(normalise_answer(other) == given for other in answers)
    if len(answers) < 4:
        return float(n_agree > 0)
    left_out_agrees, left_out_differs = min((n_agree - 1) / 3, 1), min(n_agree / 3, 1)
    return (n_agree * left_out_agrees + (len(answers) - n_agree) * left_out_differs) / len(answers)
