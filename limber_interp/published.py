"""LIMBER's published projections: where they are, and how a copy of one is recognised."""

import hashlib
from pathlib import Path

# The public repository at the commit in which the ids below were read
BASE_URL = "https://raw.githubusercontent.com/jmerullo/limber/ed3e942564abeefaca896bef2abb7f720b0b56ae/limber_weights"
FILE = "proj.ckpt"  # at <base>/<config>/ there, and at limber_weights/<config>/ here
BLOB_IDS = {
    "beit_ft_linear": "b07d6099f428389495ce77bdd3e15ddcbb00972b",
    "beit_linear": "4d3c937de5249a297f27ccf75809242d21bb9123",
    "clip_linear": "6364c10a62154d0b40b584c546210b3d7b145c29",
    "nfrn50_4096_linear": "d43bdc33bfbd09020220388c6cb0a002ba76e42c",
    "nfrn50_4096_random_linear": "2e99f008720779629792888267a38d3c21ed5de6",
}
NEVER_PUBLISHED = "beit_random_linear"
# Trained with random weights of an encoder that were not published, nor the seed that drew them
ENCODER_LOST = "nfrn50_4096_random_linear"


def git_blob_id(path: str | Path) -> str:
    """The id under which git keeps a file: sha1 of `blob <size>\\0` and its content.

    It tells a damaged or another file. It is no proof against forgery, since sha1 is broken for that.
    """
    path = Path(path)
    return _digest(path, hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False))


def provenance(path: str | Path) -> dict[str, str | None]:
    """What a file of weights is known by: its name, `sha256`, `git_blob_id`, and the config that LIMBER published it
    for (`published`), if it did.
    """
    blob_id = git_blob_id(path)
    names = {known: name for name, known in BLOB_IDS.items()}
    return {
        "file": Path(path).name,
        "sha256": _digest(Path(path), hashlib.sha256()),
        "git_blob_id": blob_id,
        "published": names.get(blob_id),
    }


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
