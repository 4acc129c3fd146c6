"""One spelling for what looks the same, for everything that compares words of captions and answers."""

import unicodedata

# Word processors write other apostrophes and hyphens than keyboards; a soft hyphen is not seen at all
_TYPED = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "‐": "-", "‑": "-", "\u00ad": ""})


def spelt(text: str) -> str:
    """A text with each letter and its accents as one character (Unicode's form NFC), and typewriter's apostrophes.

    `ñ` comes as one character or as an `n` and a tilde to be set over it, which look alike and are not equal. Accents
    stay: `pate` and `pâté` are two words.
    """
    return unicodedata.normalize("NFC", text).translate(_TYPED)


def without_accents(text: str) -> str:
    """A text with the bare letters: `cafe` for `café`, for word lists that know no others."""
    apart = unicodedata.normalize("NFD", text)
    return "".join(char for char in apart if unicodedata.category(char) != "Mn")
