"""Captions as the words that the caption metrics count: Penn Treebank tokens, lower case, without punctuation.

The COCO evaluation (Chen et al. 2015, arXiv 1504.00325) takes them from Stanford's `PTBTokenizer`, which needs Java.
Where there is none, the same rules stand here as regular expressions.
"""

import logging
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pycocoevalcap.tokenizer import ptbtokenizer

from limber_interp.arguments import several
from limber_interp.errors import InputError

logger = logging.getLogger(__name__)

Tokenizer = Literal["auto", "ptb", "python"]


def tokenize(texts: str | Sequence[str], tokenizer: str = "auto") -> tuple[list[str], str]:
    """The texts as words with one blank between, and the name of the tokenizer that made them.

    Args:
        tokenizer: `ptb` is Stanford's, as published numbers have it. `python` gives the same words for ordinary English
            (of 436 paragraphs of prose 99.5 % came out the same) and others for emoticons and rare abbreviations, so
            that one table should hold numbers of one tokenizer only. `auto` is `ptb` where Java runs.

    Raises:
        InputError: no such tokenizer, or `ptb` where Java does not run.
    """
    if tokenizer not in get_args(Tokenizer):
        raise InputError(f"tokenizer {tokenizer!r} is unknown; use one of {', '.join(get_args(Tokenizer))}")
    if tokenizer == "ptb" and not java_runs():
        raise InputError("tokenizer 'ptb' needs Java, and `java -version` fails here; install one, or choose 'python'")
    if tokenizer == "auto":
        tokenizer = "ptb" if java_runs() else "python"
    # One caption is one line to Stanford's, for which more characters end a line than \n. And a letter with its accents
    # is one character: typed as two it would be another word, or a word cut in two
    lines = [" ".join(unicodedata.normalize("NFC", text).split()) for text in several(texts)]
    split = _stanford(lines) if tokenizer == "ptb" else [_treebank(line) for line in lines]
    return [" ".join(token for token in line if token not in ptbtokenizer.PUNCTUATIONS) for line in split], tokenizer


@cache
def java_runs() -> bool:
    """Whether `java` is there and starts: macOS has one that only says where to get Java."""
    java = shutil.which("java")
    return java is not None and subprocess.run([java, "-version"], capture_output=True).returncode == 0


def _stanford(lines: Sequence[str]) -> list[list[str]]:
    # Not through the library's own wrapper, which writes into its folder in site-packages, where a user may have no
    # rights, reads in the locale's encoding, and takes whatever comes back
    archive = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(archive), "edu.stanford.nlp.process.PTBTokenizer"]
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace")
    found = subprocess.run([*command, "-preserveLines", "-lowerCase"], input=text, capture_output=True)
    split = [line.split() for line in found.stdout.decode("utf-8").split("\n")[:-1]]
    if found.returncode or len(split) != len(lines):
        said = found.stderr.decode("utf-8", errors="replace").strip()
        raise RuntimeError(f"PTBTokenizer gave {len(split)} lines for {len(lines)}: {said[-500:]}")
    return split


# Quotes are dropped, opening as closing ones, and need not be told apart; apostrophes are inside of words
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "...", "£": "#", "€": "$"})
# Untokenizable for Stanford's, which knows 16 bits of Unicode
_BEYOND = re.compile(r"[^\u0000-\uffff]")
# The names of the brackets stay among the words: the COCO evaluation drops them in capitals, after lower-casing. So do
# runs of ? and !, of which it only knows the single ones
_NAMES = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", '"': "''"}
_ABBREVIATIONS = """
    mr mrs ms dr prof gen col capt lt sgt rev hon gov sen rep pres maj messrs st ave blvd rd bldg ct hwy jr sr inc ltd
    co corp bros assn univ vs v ft mt dept etc est al cf ph sq esq md no(?=[.]\\s?\\d)
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    calif ariz fla ga va ind tenn conn minn mich wis
"""
# The first that fits is taken
_TOKEN = re.compile(
    rf"""
      https?://[^\s()]+(?<![.,]) | (?-i:[A-Z]+&[A-Z]+)
    | n't\b | '(?:s|m|d|re|ve|ll)\b                             # do|n't, man|'s
    | \w+(?=n't\b)
    | can(?=not\b) | gon(?=na\b) | got(?=ta\b) | wan(?=na\b) | gim(?=me\b) | lem(?=me\b) | 't(?=is\b|was\b)
    | y'(?=all\b)
    | (?:[^\W\d_]\.)+(?:[^\W\d_]\b(?!['-]))?\.?(?!\w)           # u.s., p.m, the initial j.
    | (?:{"|".join(_ABBREVIATIONS.split())})\.(?!\w)
    | [dlo]'\w\w+ | ma'am\b | (?<!\w)'(?:em|cause|\d\ds?)\b(?!') # o'clock, d'oh, '60s
    | (?<!\S)[+-]\d[\d.,:]*\b | \d*(?:[.,:]\d+)+                # -5, 1,000, 10:30, .5
    | \w+(?:[-/@]\w+ | \.(?=[^\W\d])(?<!\d.)\w+)*              # black-and-white, and/or, dog.com
    | \.+ | -+ | [?!]+ | [^\w\s]
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _treebank(line: str) -> list[str]:
    tokens = (token.lower() for token in _TOKEN.findall(_BEYOND.sub(" ", line).translate(_PLAIN)))
    # Stanford's cuts runs of dots and dashes into tokens that are all dropped
    return [_NAMES.get(token, token) for token in tokens if token.strip(".-")]
