"""How well a caption fits its image as a CLIP sees both: CLIPScore, and RefCLIPScore, which asks the references too.

Hessel et al. 2021, arXiv 2104.08718. A CLIP reads a caption much like a bag of words (Yuksekgonul et al. 2023, arXiv
2210.01936), so that wrong relations cost little, and it sees what its own image tower sees: captions from an encoder
that is a CLIP, most of all the same one, are favoured. Values of two CLIPs are not on one scale, so that a table is
made with one of them, whose name and hash stand beside it.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.arguments import several
from limber_interp.devices import choose_device
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.evaluation.metrics.clip import Clip, WordTokenizer, clip_of_folder, known_clip
from limber_interp.images import ImageSource, each, load_image
from limber_interp.resources import resolve
from limber_interp.weights import tensors_sha256

logger = logging.getLogger(__name__)

WEIGHT = 2.5  # section 3 of the paper: so that values of ViT-B/32 spread over 0 to 1
PREFIX = "A photo depicts"  # section 3
OWN_PREFIX = "A picture of"  # every text begins so that a text tower with words of its own was trained on


def clip_score(images: Float[Tensor, "n d"], told: Float[Tensor, "captions d"]) -> Float[Tensor, " n"]:
    """CLIPScore of each caption with its image: 2.5 · max(cos, 0), from 0 to 2.5; papers print it times 100.

    Args:
        images: unit vectors, as `ClipScorer.images` gives them.
        told: unit vectors, as `ClipScorer.texts` gives them, of one caption per image.

    Raises:
        InputError: not as many captions as images.
    """
    if len(images) != len(told):
        raise InputError(f"{len(told)} captions of {len(images)} images: expected one per image")
    return WEIGHT * (images * told).sum(-1).clamp_min(0)


def ref_clip_score(
    images: Float[Tensor, "n d"], told: Float[Tensor, "captions d"], references: Sequence[Float[Tensor, "_ d"]]
) -> Float[Tensor, " n"]:
    """RefCLIPScore: the harmonic mean of CLIPScore and the caption's cosine to the nearest reference, at least 0.

    From 0 to 10 / 7 (2.5 and 1); papers print it times 100.

    Args:
        references: unit vectors of each image's references, as `ClipScorer.references` gives them.

    Raises:
        InputError: not as many captions, or lists of references, as images.
    """
    if len(references) != len(images):
        raise InputError(f"references of {len(references)} images: expected those of {len(images)}")
    of_image = clip_score(images, told)
    nearest = [(of_one @ one).max() for of_one, one in zip(references, told, strict=True)]
    of_reference = torch.stack(nearest).clamp_min(0)
    # Where both are 0, so is the mean
    return 2 * of_image * of_reference / (of_image + of_reference).clamp_min(torch.finfo(torch.float32).tiny)


class ClipScorer:
    """A CLIP, frozen and in eval mode, which gives unit vectors of images and texts, in float32 on the CPU.

    Attributes:
        name: which CLIP, for the record.
        prefix: stands before each text that does not begin with it.
    """

    def __init__(self, name: str, clip: Clip, prefix: str, device: str | torch.device = "auto") -> None:
        self.name = name
        self.prefix = prefix
        self._clip = clip
        self._device = choose_device(device)
        clip.model.to(self._device)

    @classmethod
    def open_clip(
        cls, architecture: str, pretrained: str | Path, prefix: str = PREFIX, device: str | torch.device = "auto"
    ) -> "ClipScorer":
        """A CLIP that open_clip knows; the paper's is `open_clip("ViT-B-32-quickgelu", "openai")`.

        Args:
            architecture: open_clip's name. OpenAI's weights belong to the names that end in `-quickgelu`. A file does
                not say whose it is: under the other name it is loaded, and gives worse vectors.
            pretrained: a tag of open_clip, whose weights are downloaded unless they are in its cache; or a file of
                weights, with which nothing is downloaded.

        Raises:
            InputError: unknown names; weights of another architecture, with other activations, or that cannot be read
                or downloaded; a file for an architecture whose tokenizer would have to be downloaded.
        """
        return cls(f"{architecture} ({pretrained})", known_clip(architecture, pretrained), prefix, device)

    @classmethod
    def of_folder(
        cls, folder: str | Path, prefix: str | None = None, device: str | torch.device = "auto"
    ) -> "ClipScorer":
        """A CLIP from a folder that holds `open_clip_config.json`, weights, and its tokenizer, if that is not CLIP's
        own. Nothing is downloaded.

        Args:
            folder: a `vocabulary.json` in it lists whole words by their ids, as the embedded suite's text tower has
                them: see `WordTokenizer`.
            prefix: None is the paper's, or "A picture of" where there is a `vocabulary.json`.

        Raises:
            InputError: no such folder, a file of it is missing or cannot be read, or they do not fit together.
        """
        clip = clip_of_folder(resolve(str(folder)))
        if prefix is None:
            prefix = OWN_PREFIX if isinstance(clip.tokenizer, WordTokenizer) else PREFIX
        return cls(str(folder), clip, prefix, device)

    @cached_property
    def sha256(self) -> str:
        """Of all its tensors."""
        return tensors_sha256(self._clip.model.state_dict())

    @torch.no_grad()
    def images(
        self, images: ImageSource | Sequence[ImageSource] | Float[Tensor, "n 3 height width"], batch_size: int = 64
    ) -> Float[Tensor, "n d"]:
        """Unit vectors of images, or of pixels that are preprocessed already.

        Raises:
            InputError: none, one that cannot be opened, or a batch size below 1.
        """
        if not isinstance(images, Tensor):
            images = list(each(images))
        if not len(images):
            raise InputError("no images to score; give one or more")
        check_at_least_one(batch_size=batch_size)
        found = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            if not isinstance(part, Tensor):
                part = torch.stack([self._clip.preprocess(load_image(image)) for image in part])
            found.append(
                self._clip.model.encode_image(part.to(self._device, torch.float32), normalize=True).float().cpu()
            )
        return torch.cat(found)

    @torch.no_grad()
    def texts(self, texts: str | Sequence[str], batch_size: int = 256) -> Float[Tensor, "n d"]:
        """Unit vectors of texts, each behind the prefix; an equal text is embedded once.

        Raises:
            InputError: none, or a batch size below 1.
        """
        texts = several(texts)
        if not texts:
            raise InputError("no texts to score; give one or more")
        check_at_least_one(batch_size=batch_size)
        if unknown := self.unknown(texts):
            most = ", ".join(word for word, _ in unknown.most_common(10))
            logger.warning("%s: %d words are unknown to it and left out: %s", self.name, unknown.total(), most)
        places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        prefixed = [self._prefixed(text) for text in places]
        found = [
            self._clip.model.encode_text(
                self._clip.tokenizer(prefixed[start : start + batch_size]).to(self._device), normalize=True
            )
            for start in range(0, len(prefixed), batch_size)
        ]
        return torch.cat(found).float().cpu()[[places[text] for text in texts]]

    def references(self, references: Sequence[Sequence[str]], batch_size: int = 256) -> list[Float[Tensor, "_ d"]]:
        """Unit vectors of each image's references.

        Raises:
            InputError: an image without any.
        """
        for i, of_image in enumerate(references):
            if not of_image or isinstance(of_image, str):
                raise InputError(f"image {i}: expected a list of one or more references, found {of_image!r}")
        found = self.texts([text for of_image in references for text in of_image], batch_size)
        return list(found.split([len(of_image) for of_image in references]))

    def unknown(self, texts: str | Sequence[str]) -> Counter[str]:
        """Words that the tokenizer leaves out, and how often: none but of a `WordTokenizer`."""
        texts = several(texts)
        return self._clip.tokenizer.unknown(texts) if isinstance(self._clip.tokenizer, WordTokenizer) else Counter()

    def _prefixed(self, text: str) -> str:
        return text if text.lower().startswith(self.prefix.lower()) else f"{self.prefix} {text}"
