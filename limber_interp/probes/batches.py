"""Images on their way to the language model, a batch at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.errors import InputError
from limber_interp.images import ImageSource, describe, image_hash, load_image
from limber_interp.models.limber import Limber


@dataclass(frozen=True)
class Batch:
    """Images at every stage before the language model.

    Attributes:
        names: as given.
        hashes: of the pictures.
    """

    names: list[str]
    hashes: list[str]
    pixels: Float[Tensor, "batch 3 height width"]
    encodings: Float[Tensor, "batch image_pos d_encoder"]
    soft_prompts: Float[Tensor, "batch prompt_pos d_model"]


@torch.no_grad()
def batches(model: Limber, sources: Iterable[ImageSource], batch_size: int) -> Iterator[Batch]:
    """Open and encode images when their turn comes, so that any number of them fits into memory.

    Raises:
        InputError: an image that cannot be opened, or whose soft prompt is not finite.
    """
    sources = iter(sources)
    while part := list(islice(sources, batch_size)):
        names = [describe(source) for source in part]
        opened = [load_image(source) for source in part]
        pixels = model.preprocess(opened)
        encodings = model.encode(pixels)
        soft_prompts = model.projection(encodings).float()
        for name, soft_prompt in zip(names, soft_prompts, strict=True):
            if not soft_prompt.isfinite().all():
                raise InputError(f"{name}: its soft prompt is not finite; check encoder and projection")
        yield Batch(names, [image_hash(image) for image in opened], pixels, encodings, soft_prompts)
