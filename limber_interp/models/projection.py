"""The one trained part: a linear map from an encoder's space into the language model's embedding space."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limber_interp.errors import InputError, reading
from limber_interp.published import BLOB_IDS, NEVER_PUBLISHED, provenance
from limber_interp.records import write_atomically
from limber_interp.weights import check_floats, check_shapes, read_tensors, tensors_sha256

PARTS = ("encoder", "lm")
OBJECTS = ("config", "hashes", "shapes", "source")  # of a manifest


class Projection(nn.Module):
    """One linear layer, applied to each position of an encoding on its own (Merullo et al., arXiv 2209.15162, §2.1).

    A pooled encoder gives one vector; its layer may make `n_tokens` rows of the prompt from it (LIMBER's
    `image_seq_len`), in the order of the layer's outputs.

    Attributes:
        linear: `weight` (n_tokens * d_model, d_encoder) and `bias`. Frozen until someone asks for its gradient.
        manifest: what it was trained with and how, or at least the `source` it was read from; None where the file does
            not say.
    """

    def __init__(self, d_encoder: int, d_model: int, n_tokens: int = 1, manifest: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(d_encoder, n_tokens * d_model, dtype=torch.float32)
        self.n_tokens = n_tokens
        self.manifest = manifest
        self.eval().requires_grad_(False)

    def forward(
        self, encoding: Float[Tensor, "batch image_pos d_encoder"]
    ) -> Float[Tensor, "batch prompt_pos d_model"]:
        """The soft prompt: `image_pos * n_tokens` rows per image."""
        return rearrange(
            self.linear(encoding), "batch pos (token d_model) -> batch (pos token) d_model", token=self.n_tokens
        )

    @cached_property
    def sha256(self) -> str:
        """Of weight and bias, as they were when first asked for."""
        return tensors_sha256(self.linear.state_dict())

    @property
    def trained_with(self) -> dict[str, str]:
        """sha256 of the `encoder` and of the `lm` it was trained with, as far as its manifest says."""
        hashes = (self.manifest or {}).get("hashes", {})
        return {part: hashes[part] for part in PARTS if hashes.get(part)}

    @property
    def published(self) -> str | None:
        """The config that LIMBER published it for, recognised by its content; None for any other."""
        return (self.manifest or {}).get("source", {}).get("published")

    def check_fit(self, part: Literal["encoder", "lm"], name: str, sha256: str) -> None:
        """Raise an InputError that names both, if it was trained with another encoder or language model than this."""
        expected = self.trained_with[part]
        if sha256 != expected:
            assert self.manifest is not None
            raise _misfit(part, self.manifest, f"sha256 {expected[:12]}…", name, f"{sha256[:12]}…")

    def check_published(self, config: str, source: str | Path) -> None:
        """Raise an InputError if it is one of LIMBER's published projections, and `config` names another of LIMBER's.

        Shapes do not tell: both BEiTs have the same, and a random NF-ResNet that of the trained one.
        """
        if self.published not in (None, config) and config in (*BLOB_IDS, NEVER_PUBLISHED):
            raise InputError(f"{source}: is LIMBER's {self.published}, found config {config}; name one of them")

    def save(self, path: str | Path, manifest: Mapping[str, Any], n_positions: int | None = None) -> None:
        """Write `.safetensors` with the manifest as JSON in its metadata. Whole or not at all.

        The manifest's `shapes` are added: d_encoder, d_model, n_tokens, and `n_positions`, which are the encoder's.

        Raises:
            InputError: the path cannot be written.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.linear.state_dict().items()}
        shapes = {
            "d_encoder": self.linear.in_features,
            "d_model": self.linear.out_features // self.n_tokens,
            "n_tokens": self.n_tokens,
            "n_positions": n_positions,
        }
        metadata = {"manifest": json.dumps({**manifest, "shapes": shapes})}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))

    def save_ckpt(self, path: str | Path) -> None:
        """Write LIMBER's own format: a `torch.save` of the layer's state dict, with no manifest. Whole or not at all.

        Raises:
            InputError: the path cannot be written.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.linear.state_dict().items()}
        write_atomically(path, lambda temporary: torch.save(tensors, temporary))


def check_projection_is_there(path: Path) -> None:
    """Raise InputError, which says where to put it, if a projection's file is missing. LIMBER's are fetched."""
    if not path.is_file():
        config = path.parent.name
        fetch = f"`python -m limber_interp.fetch {config}` gets it; or " if config in BLOB_IDS else ""
        raise InputError(
            f"projection {path}: no such file; {fetch}put it there, or give --projection a .safetensors or LIMBER's "
            ".ckpt"
        )


def load_projection(
    path: str | Path,
    d_encoder: int,
    d_model: int,
    n_tokens: int = 1,
    *,
    n_positions: int | None = None,
    between: tuple[str, str] = ("another", "another"),
) -> Projection:
    """Read a projection, in float32.

    Args:
        n_positions: of the encoder, where it is known.
        between: names of the encoder and of the language model that it is asked for, for the messages.
        path: `.safetensors` as `Projection.save` writes it, or LIMBER's `.ckpt`: a `torch.save` of the state dict of an
            `nn.Linear`, which carries no manifest; its provenance takes the place.

    Raises:
        InputError: no such file, truncated, a pickle that would run code, a manifest that names other shapes, a tensor
            of the wrong shape, NaN or infinity.
    """
    path = Path(path)
    check_projection_is_there(path)
    tensors = read_tensors(path)
    manifest = _read_manifest(path)
    if manifest is not None:
        found = {"d_encoder": d_encoder, "n_positions": n_positions, "d_model": d_model, "n_tokens": n_tokens}
        _check_shapes_of(manifest, found, between, path)
    check_shapes(tensors, {"weight": (n_tokens * d_model, d_encoder), "bias": (n_tokens * d_model,)}, path)
    check_floats(tensors, path)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if bad := int((~tensor.isfinite()).sum()):
            raise InputError(f"{path}: tensor {name!r}: found {bad} of {tensor.numel()} values NaN or infinite")
    with torch.device("meta"):
        projection = Projection(d_encoder, d_model, n_tokens, manifest)
    projection.linear.load_state_dict(tensors, assign=True)
    return projection.requires_grad_(False)


def _check_shapes_of(
    manifest: Mapping[str, Any], found: Mapping[str, int | None], between: tuple[str, str], path: Path
) -> None:
    """Raise an InputError if a manifest has shapes, and others than were found. None is not known, and fits all."""
    shapes = {key: manifest.get("shapes", {}).get(key) for key in found}
    differ = [key for key in found if None not in (shapes[key], found[key]) and shapes[key] != found[key]]
    for part, name, keys in zip(PARTS, between, (("d_encoder", "n_positions"), ("d_model",)), strict=True):
        if set(keys) & set(differ):
            trained, asked = (", ".join(f"{key} {sizes[key]}" for key in keys) for sizes in (shapes, found))
            raise _misfit(part, manifest, trained, name, asked)
    if differ:
        raise InputError(
            f"{path}: makes {shapes['n_tokens']} rows of the prompt from each vector, found image_seq_len "
            f"{found['n_tokens']} in the config; they must be the same"
        )


def _misfit(part: str, manifest: Mapping[str, Any], trained: str, name: str, found: str) -> InputError:
    trained_name = manifest.get("config", {}).get(f"{part}_name", "unnamed")
    return InputError(
        f"projection was trained with {part} {trained_name} ({trained}), found {name} ({found}): use the projection "
        f"that belongs to it, or the {part} that it belongs to"
    )


def _read_manifest(path: Path) -> dict[str, Any] | None:
    if path.suffix != ".safetensors":
        return {"source": provenance(path)}
    with reading(path, "its metadata cannot be read"), safe_open(path, framework="pt") as stored:
        text = (stored.metadata() or {}).get("manifest")
    if text is None:
        return None
    with reading(path, "its manifest is not JSON"):
        manifest = json.loads(text)
    if not (isinstance(manifest, dict) and all(isinstance(manifest.get(key, {}), dict) for key in OBJECTS)):
        raise InputError(f"{path}: its manifest is no JSON object with objects as its {', '.join(OBJECTS)}")
    texts = {f"hashes.{part}": manifest.get("hashes", {}).get(part) for part in PARTS}
    texts["source.published"] = manifest.get("source", {}).get("published")
    for key, value in texts.items():
        if not isinstance(value, str | None):
            raise InputError(f"{path}: its manifest has {value!r} under {key}, expected a text or null")
    for key, value in manifest.get("shapes", {}).items():
        if not isinstance(value, int | None):
            raise InputError(f"{path}: its manifest has {value!r} under shapes.{key}, expected a number or null")
    return manifest
