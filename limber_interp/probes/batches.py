"""Images on their way to the language model, a batch at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.errors import check_at_least_one
from limber_interp.finite import check_rows
from limber_interp.images import ImageSource, describe, image_hash, load_image
from limber_interp.models.limber import Limber
from limber_interp.models.prompt import ImagePrompt


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

    @property
    def image_prompts(self) -> list[ImagePrompt]:
        """The soft prompts as parts of prompts, which know whose they are."""
        return [ImagePrompt(*given) for given in zip(self.soft_prompts, self.names, self.hashes, strict=True)]


@torch.no_grad()
def batches(model: Limber, sources: Iterable[ImageSource], batch_size: int) -> Iterator[Batch]:
    """Open and encode images when their turn comes, so that any number of them fits into memory.

    Raises:
        InputError: a batch size below 1, an image that cannot be opened, or one whose encoding or soft prompt is not
            finite.
    """
    check_at_least_one(batch_size=batch_size)
    sources = iter(sources)
    while part := list(islice(sources, batch_size)):
        names = [describe(source) for source in part]
        opened = [load_image(source) for source in part]
        pixels = model.preprocess(opened)
        encodings = model.encode_pixels(pixels, names)
        soft_prompts = model.projection(encodings).float()
        check_rows(soft_prompts, names, "its soft prompt is not finite; check the projection's weights")
        yield Batch(names, [image_hash(image) for image in opened], pixels, encodings, soft_prompts)
