"""Limber: image encoder, projection and language model, composed."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformer_lens import ActivationCache, HookedTransformer

from limber_interp.config import DEFAULT_CONFIG, LimberConfig, load_config
from limber_interp.devices import building, choose_device
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.finite import check_rows
from limber_interp.images import ImageSource, describe, distinct, each, image_hash, is_one_image, load_image
from limber_interp.layout import Layout
from limber_interp.models.encoders import Encoder, blank_encoder, check_weights_are_there, load_encoder
from limber_interp.models.generation import generate
from limber_interp.models.hooked_gptj import check_dtype, describe_lm, lm_sha256, load_hooked_gptj, locate_lm
from limber_interp.models.projection import Projection, check_projection_is_there, load_projection
from limber_interp.models.prompt import Content, ImagePrompt, Prompt, Text
from limber_interp.models.vocabulary import Vocabulary, vocabulary
from limber_interp.published import ENCODER_LOST
from limber_interp.records import Manifest
from limber_interp.resources import resolve
from limber_interp.threads import drawing, using
from limber_interp.weights import weight_files

logger = logging.getLogger(__name__)

# In a prompt a plain string is text; an image is any other ImageSource, or a soft prompt: an ImagePrompt, or vectors
# (prompt_pos, d_model)
PromptPart: TypeAlias = ImageSource | ImagePrompt | Tensor


UNTRAINED = "none"  # as a config's `projection`
NO_PARTS = "empty prompt: expected images and texts, such as [image, 'A picture of']"


class Limber:
    """image → `encoder` → `projection` → soft prompt → `lm`, all frozen and in eval mode.

    The encoder and the projection compute in float32, the language model in `dtype`.
    """

    def __init__(
        self,
        config: LimberConfig,
        encoder: Encoder,
        projection: Projection,
        lm: HookedTransformer,
        lm_folder: Path,
        lm_sha256: str | None = None,
    ) -> None:
        """Compose parts that are already on one device. `lm_sha256` spares the reading of a large one, where known.

        Raises:
            InputError: the projection's manifest says that it was trained with another encoder or language model.
        """
        self.config = config
        self.encoder = encoder
        self.projection = projection
        self.lm = lm
        self.lm_folder = lm_folder
        self.vocabulary: Vocabulary = vocabulary(lm)
        self.device: torch.device = lm.W_E.device
        self.dtype: torch.dtype = lm.cfg.dtype
        if lm_sha256 is not None:
            self.lm_sha256 = lm_sha256
        if "encoder" in projection.trained_with:
            projection.check_fit("encoder", encoder.name, encoder.sha256)
        if "lm" in projection.trained_with:  # reads all of a large model, so only where there is something to compare
            projection.check_fit("lm", config.lm_name, self.lm_sha256)

    # From images to the residual stream

    def preprocess(self, images: ImageSource | Sequence[ImageSource]) -> Float[Tensor, "batch 3 height width"]:
        """Open images (paths, URLs, bytes, files, PIL, arrays) and turn them into what the encoder is given."""
        pixels = [self.encoder.preprocess(load_image(image)) for image in each(images)]
        if not pixels:
            raise InputError("no image given")
        return torch.stack(pixels).to(self.device)

    @torch.no_grad()
    def encode(
        self, images: ImageSource | Sequence[ImageSource] | Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch image_pos d_encoder"]:
        """The encoder's vectors, of images or of pixels that `preprocess` gave.

        Raises:
            InputError: no image, one that cannot be opened, or vectors that are not finite.
        """
        if isinstance(images, Tensor):
            pixels, names = images, [f"image {i} of the batch" for i in range(len(images))]
        else:
            images = list(each(images))
            pixels, names = self.preprocess(images), [describe(image) for image in images]
        return self.encode_pixels(pixels, names)

    @torch.no_grad()
    def encode_pixels(
        self, pixels: Float[Tensor, "batch 3 height width"], names: Sequence[str]
    ) -> Float[Tensor, "batch image_pos d_encoder"]:
        """The encoder's vectors, of pixels whose images have these names.

        Raises:
            InputError: vectors that are not finite.
        """
        encodings = self.encoder(pixels)
        fault = f"what the encoder {self.encoder.name} makes of it is not finite; check the encoder's weights"
        check_rows(encodings, names, fault)
        return encodings

    @torch.no_grad()
    def soft_prompt(
        self, images: ImageSource | Sequence[ImageSource] | Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch prompt_pos d_model"]:
        """What the language model is given for images, in float32: `projection(encode(images))`."""
        return self.projection(self.encode(images))

    @torch.no_grad()
    def image_prompts(self, images: ImageSource | Sequence[ImageSource]) -> list[ImagePrompt]:
        """The soft prompts of images, encoded as one batch, as parts of prompts: `embed([[part, "A picture of"], …])`.

        Raises:
            InputError: as `encode`.
        """
        images = list(each(images))
        names, opened = [describe(image) for image in images], [load_image(image) for image in images]
        soft_prompts = self.projection(self.encode_pixels(self.preprocess(opened), names))
        hashes = map(image_hash, opened)
        return [ImagePrompt(*given) for given in zip(soft_prompts, names, hashes, strict=True)]

    @torch.no_grad()
    def embed(self, prompt: PromptPart | Sequence[PromptPart] | Sequence[Sequence[PromptPart]]) -> Prompt:
        """Lay images and texts one after the other: `[image, "A picture of"]`, or a list of such lists.

        A string is text; an image is a `Path`, bytes, an open file, a PIL image, a numpy array, or a soft prompt: one
        of `image_prompts`, or your own vectors (prompt_pos, d_model). A part that stands alone is the whole prompt. No
        beginning-of-text token is put before; texts are tokenised each on its own.

        Raises:
            InputError: an empty prompt, a list of both prompts and parts, an image that cannot be opened, a plain
                string that is a URL or the name of an image file here (`Text(…)` is text whatever it reads like), a
                soft prompt of another width, or more positions than the language model has.
        """
        if isinstance(prompt, PromptPart):  # a string is a sequence too, of single letters
            prompt = [prompt]
        if not prompt:
            raise InputError(NO_PARTS)
        nested = [isinstance(row, list | tuple) for row in prompt]
        if any(nested) and not all(nested):
            raise InputError("prompt: found lists and bare parts side by side; a batch is a list of lists")
        batch = cast(Sequence[Sequence[PromptPart]], prompt if all(nested) else [prompt])
        rows, layouts, contents = zip(*(self._lay_out(parts) for parts in batch), strict=True)
        if (longest := max(layout.n_pos for layout in layouts)) > self.lm.cfg.n_ctx:
            raise InputError(f"prompt of {longest} positions: the language model has {self.lm.cfg.n_ctx}")
        return Prompt.stack(rows, layouts, contents)

    def _lay_out(self, parts: Sequence[PromptPart]) -> tuple[Float[Tensor, "pos d_model"], Layout, tuple[Content, ...]]:
        vectors: list[Tensor] = []
        described: list[tuple[Any, int, tuple[int, int] | None, str]] = []
        contents: list[Content] = []
        for part in parts:
            if isinstance(part, str):
                rows, said = self._embed_text(part), str(part)
                described.append(("text", len(rows), None, said))
                contents.append(("text", said))
            else:
                rows, source, content = self._image_part(part)
                grid = self.encoder.grid if len(rows) == self.encoder.n_positions else None
                described.append(("image", len(rows), grid, source))
                contents.append(("image", content))
            vectors.append(rows.to(self.device, self.dtype))
        layout = Layout.of(described)
        if layout.n_pos == 0:
            raise InputError(NO_PARTS)
        return torch.cat(vectors), layout, tuple(contents)

    def _image_part(self, part: PromptPart) -> tuple[Float[Tensor, "pos d_model"], str, str | Tensor]:
        """Its soft prompt, its name, and what it says: which picture it is, or the vectors themselves."""
        if isinstance(part, Tensor):
            return self._check_width(part), "<soft prompt>", part
        assert not isinstance(part, str)
        shown = part if isinstance(part, ImagePrompt) else self.image_prompts(part)[0]
        return self._check_width(shown.vectors), shown.source, shown.sha256

    def _embed_text(self, text: str) -> Float[Tensor, "pos d_model"]:
        if not isinstance(text, Text) and _names_an_image(text):
            raise InputError(
                f"{text!r} would be read as text, but names an image: give pathlib.Path(…) or load_image(…), or "
                "limber_interp.models.prompt.Text(…) where it is text"
            )
        with using(self.lm):  # tokenisers keep settings of a call, such as padding, in themselves
            ids = self.vocabulary.encode(text)
        return self.lm.W_E[torch.tensor(ids, dtype=torch.long, device=self.device)]

    def _check_width(self, soft_prompt: Tensor) -> Float[Tensor, "pos d_model"]:
        if soft_prompt.ndim != 2 or soft_prompt.shape[1] != self.lm.cfg.d_model:
            expected = f"(prompt_pos, {self.lm.cfg.d_model})"
            raise InputError(f"soft prompt: found shape {tuple(soft_prompt.shape)}, expected {expected}")
        return soft_prompt

    # Through the language model

    def run_with_cache(self, prompt: Prompt | PromptPart | Sequence, **kwargs: Any) -> tuple[Tensor, ActivationCache]:
        """`HookedTransformer.run_with_cache` on a prompt: logits (batch, pos, d_vocab) and the activations.

        It starts at the first block, so there is no `hook_embed`: the prompt's residual is `blocks.0.hook_resid_pre`.
        """
        return self.lm.run_with_cache(**self._lm_input(prompt), **kwargs)

    def run_with_hooks(self, prompt: Prompt | PromptPart | Sequence, fwd_hooks: Sequence = (), **kwargs: Any) -> Tensor:
        """`HookedTransformer.run_with_hooks` on a prompt: logits (batch, pos, d_vocab)."""
        return self.lm.run_with_hooks(**self._lm_input(prompt), fwd_hooks=list(fwd_hooks), **kwargs)

    def _lm_input(self, prompt: Prompt | PromptPart | Sequence) -> dict[str, Any]:
        prompt = prompt if isinstance(prompt, Prompt) else self.embed(prompt)
        residual = prompt.residual.clone()  # hooks on the first block's input may write into it
        return {"input": residual, "start_at_layer": 0, "attention_mask": prompt.attention_mask}

    @overload
    def caption(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str = ...,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int = ...,
        use_cache: bool | None = ...,
        n_samples: None = ...,
    ) -> str | list[str]: ...

    @overload
    def caption(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str = ...,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int = ...,
        use_cache: bool | None = ...,
        *,
        n_samples: int,
    ) -> list[str] | list[list[str]]: ...

    def caption(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str = "A picture of",
        max_new_tokens: int = 20,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        use_cache: bool | None = None,
        n_samples: int | None = None,
    ) -> str | list[str] | list[list[str]]:
        """What the language model says after an image and `prompt`, without the prompt; greedy unless told otherwise.

        The order is temperature, top-k, top-p (see `token_probabilities`). An image has the same caption in any batch:
        what is drawn depends on `seed`, the picture and the prompt, so that different images draw different numbers.
        Hooks that stand on `lm` take effect, on whole prompts: see `generation.generate` on `use_cache`.

        Args:
            prompt: always text, also where a file has that name.
            n_samples: draw so many captions of each image; the first is the one that is drawn without it.

        Returns:
            One caption for one image, a list for a list. With `n_samples`, also 1, a list of captions in the place of
            each caption.

        Raises:
            InputError: a setting out of its range, `n_samples` above 1 at temperature 0, or an image that cannot be
                opened; numbers that are not finite; `use_cache=True` where hooks stand on `lm`.
        """
        check_samples(n_samples, temperature)
        one = is_one_image(images)
        prompts: list[list[PromptPart]] = [[shown, Text(prompt)] for shown in self.image_prompts(images)]
        embedded = self.embed(prompts)
        drawn = []
        for sample in range(n_samples or 1):
            ids = self.generate(embedded, max_new_tokens, temperature, top_k, top_p, seed, use_cache, sample=sample)
            drawn.append([self.vocabulary.text(row).strip() for row in ids])
        if n_samples is None:
            return drawn[0][0] if one else drawn[0]
        by_image = [list(samples) for samples in zip(*drawn, strict=True)]
        return by_image[0] if one else by_image

    def generate(self, prompt: Prompt | PromptPart | Sequence, *sampling: Any, **settings: Any) -> list[list[int]]:
        """Token ids that continue each prompt, the end of text left out; settings as in `generation.generate`."""
        prompt = prompt if isinstance(prompt, Prompt) else self.embed(prompt)
        vocabulary = self.vocabulary
        stopping = vocabulary.rows, vocabulary.eos
        settings = {"keys": prompt.keys, "names": prompt.names, **settings}
        return generate(self.lm, prompt.residual, prompt.attention_mask, *stopping, *sampling, **settings)

    # What it is

    @cached_property
    def lm_sha256(self) -> str:
        """Of the language model's weights as stored."""
        return lm_sha256(self.lm_folder)

    @property
    def verified(self) -> bool:
        """Whether the projection says which encoder and language model it was trained with (then these are they)."""
        return {"encoder", "lm"} <= self.projection.trained_with.keys()

    def manifest(self, images: ImageSource | Sequence[ImageSource] = (), seed: int | None = None) -> Manifest:
        """What produces the results of this model on these images."""
        images = list(each(images))
        names = distinct([describe(image) for image in images])
        return Manifest(
            config=self.config.model_dump(),
            hashes={"projection": self.projection.sha256, "encoder": self.encoder.sha256, "lm": self.lm_sha256},
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            seed=self.config.seed if seed is None else seed,
            preprocessing=self.encoder.preprocessing,
            images={name: image_hash(image) for name, image in zip(names, images, strict=True)},
            notes=self.notes,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this model's numbers has to know."""
        if self.config.projection == UNTRAINED:
            return ("untrained projection",)
        if self.verified:
            return ()
        if self.projection.published == ENCODER_LOST:
            return (
                "unverified projection: LIMBER's for a random encoder whose weights and seed were not published, "
                "so that it cannot be rebuilt; expect noise",
            )
        if self.encoder.drawn:
            return ("unverified projection: trained with other random weights than those drawn here; expect noise",)
        return ("unverified projection: its file does not say what it was trained with",)


@dataclass(frozen=True)
class Outline:
    """What is known of a model before any of its weights are read.

    Attributes:
        n_layers, n_ctx: blocks of the language model, and positions that it has.
        prompt_pos, grid: positions of an image's soft prompt, and (rows, columns) of its patches; None where the
            encoder pools them.
    """

    config: LimberConfig
    vocabulary: Vocabulary
    n_layers: int
    n_ctx: int
    prompt_pos: int
    grid: tuple[int, int] | None

    def layout(self, text: str, max_new_tokens: int = 0) -> Layout:
        """Of the prompt [image, `text`].

        Raises:
            InputError: the language model does not have so many positions, or not so many more for a continuation.
        """
        n_text = len(self.vocabulary.encode(text))
        layout = Layout.of([("image", self.prompt_pos, self.grid, "image"), ("text", n_text, None, text)])
        if layout.n_pos > self.n_ctx:
            raise InputError(
                f"prompt of {layout.n_pos} positions, {self.prompt_pos} of them the image's: the language model has "
                f"{self.n_ctx}"
            )
        if layout.n_pos + max_new_tokens > self.n_ctx:
            raise InputError(
                f"max_new_tokens {max_new_tokens}: expected 1 to {self.n_ctx - layout.n_pos}; the image and the prompt "
                f"take {layout.n_pos} of the model's {self.n_ctx} positions"
            )
        return layout


def load(
    config: str | Path | LimberConfig = DEFAULT_CONFIG,
    lm: str | Path | None = None,
    encoder_weights: str | Path | None = None,
    projection: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    seed: int | None = None,
    beside: Limber | None = None,
    check: Callable[[Outline], object] = lambda outline: None,
) -> Limber:
    """Load a config's encoder, projection and language model, ready to use.

    What is small comes first: whatever can be wrong without the encoder's and the language model's weights shows before
    these are read, or downloaded.

    Args:
        config: a name from `configs/`, a path to a YAML file, or a LimberConfig.
        lm, encoder_weights, projection, seed: replace the config's.
        projection: "none" for an untrained one, drawn from the seed: to be trained, or as a control.
        device, dtype: of the language model, see `load_hooked_gptj`; the encoder and projection stay in float32.
        beside: a model whose language model is taken, as it is, where the config names the same one.
        check: told what the model will be, before its weights are read; what it raises is passed on, so that whoever
            asks for the model can refuse what does not fit it.

    Raises:
        InputError: anything missing, broken, or not made for each other.
    """
    overrides = {
        "lm_name": None if lm is None else str(lm),
        "encoder_weights": None if encoder_weights is None else str(encoder_weights),
        "projection": None if projection is None else str(projection),
        "seed": seed,
    }
    if isinstance(config, LimberConfig):
        config = config.model_copy(update={key: value for key, value in overrides.items() if value is not None})
    else:
        config = load_config(config, **overrides)
    device = choose_device(device)
    check_dtype(dtype)
    check_files(config)
    blank = blank_encoder(config)
    described, tokenizer = describe_lm(config.lm_name)
    linear = _projection(config, blank, described.n_embd)
    prompt_pos = blank.n_positions * linear.n_tokens
    check(
        Outline(
            config,
            Vocabulary(tokenizer, described.vocab_size),
            described.n_layer,
            described.n_positions,
            prompt_pos,
            blank.grid,
        )
    )
    if (here := resolve(config.lm_name)).is_dir():
        weight_files(here)
    encoder = load_encoder(config)
    lm_folder = locate_lm(config.lm_name)
    if beside is not None and beside.lm_folder == lm_folder:
        device, hooked, sha256 = beside.device, beside.lm, beside.lm_sha256
    else:
        hooked, sha256 = load_hooked_gptj(lm_folder, dtype, device), None
    limber = Limber(config, encoder.to(device), linear.to(device), hooked, lm_folder, sha256)
    for note in limber.notes:
        logger.warning("%s: %s", config.name, note)
    return limber


def check_files(config: LimberConfig) -> None:
    """Find out whether the projection and the encoder's weights are here, if a config names some; nothing is opened.

    Raises:
        InputError: it names no projection; or the projection's file or the encoder's weights are missing.
    """
    if config.projection is None:
        raise InputError(f"config {config.name} names no projection: give --projection, or 'none' for an untrained one")
    if config.projection != UNTRAINED:
        check_projection_is_there(resolve(config.projection))
    check_weights_are_there(config)


def _projection(config: LimberConfig, encoder: Encoder, d_model: int) -> Projection:
    """The config's, or an untrained one drawn from its seed; the encoder need not have weights."""
    assert config.projection is not None
    shape = encoder.d_encoder, d_model, n_tokens(config, encoder)
    if config.projection == UNTRAINED:
        with drawing(config.seed), building():
            return Projection(*shape)
    path = resolve(config.projection)
    linear = load_projection(path, *shape, n_positions=encoder.n_positions, between=(encoder.name, config.lm_name))
    linear.check_published(config.name, path)
    return linear


def n_tokens(config: LimberConfig, encoder: Encoder) -> int:
    """Rows of the prompt per encoder position: LIMBER's `image_seq_len` counts only where the encoder pools."""
    return config.image_seq_len or 1 if encoder.grid is None else 1


def check_samples(n_samples: int | None, temperature: float) -> None:
    """Refuse a number of samples that is none, or several that would all be the same.

    Raises:
        InputError: it is below 1, or above 1 at temperature 0.
    """
    check_at_least_one(n_samples=n_samples)
    if n_samples is not None and n_samples > 1 and temperature == 0:
        raise InputError(
            f"n_samples {n_samples} at temperature 0 (greedy): all would be the same; set a temperature, such as 1"
        )


def _names_an_image(text: str) -> bool:
    """Whether a text reads like an image: a URL, or the name of a file here with an image's ending."""
    if text.startswith(("http://", "https://")):
        return True
    return text.lower().endswith(tuple(Image.registered_extensions())) and os.path.isfile(text)
