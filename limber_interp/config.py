"""LimberConfig: what an experiment is made of, in flat YAML with LIMBER's own key names where it has one.

Source of the names: the published configuration class of LIMBER (Merullo et al., ICLR 2023, arXiv 2209.15162).
"""

import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from limber_interp.errors import InputError, nearest, reading
from limber_interp.resources import configs_dir

logger = logging.getLogger(__name__)

DEFAULT_CONFIG = "emoji_clip_linear"

MOST_SEEDS = 2**63 - 1  # what torch's and numpy's generators both take

# LIMBER's configuration class knows these keys, but its code never reads them; `image_enc_lr` it reads, as the learning
# rate of parameters that are frozen in every published config
_UNREAD = """
class_dict encs_dir eval_dataset_name eval_dataset_pct eval_steps fine_tune image_enc_lr load load_optimizer
log_every optimizer_name run_blind save seq_len tokenizer_name train_dataset_name wandb_project
"""
KEYS_WITHOUT_EFFECT = frozenset(_UNREAD.split())


class LimberConfig(BaseModel):
    """An encoder, a language model, the linear map between them, and how that map was or will be trained.

    Frozen; an unknown key is an error. Paths may be absolute, relative to the working directory, or relative to the
    folder that holds `limber_weights/`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field("unnamed", description="name of the config; the file's, unless the file gives another")

    # The chain
    encoder_name: str = Field(description="a key of the encoder table, such as clip_resnet_large or emoji_beit")
    encoder_weights: str | None = Field(None, description="file or folder; None: the library's own hub name")
    pretrained_img_encoder: bool = Field(True, description="False: weights drawn at random from `seed`")
    image_size: PositiveInt = Field(description="pixels on each side of what the encoder is given")
    image_seq_len: PositiveInt | None = Field(
        None, description="rows of the prompt made from a pooled encoder's one vector; fixed by the others themselves"
    )
    lm_name: str = Field("EleutherAI/gpt-j-6B", description="folder or hub id of a GPT-J")
    projection: str | None = Field(None, description=".safetensors or LIMBER's .ckpt")
    seed: NonNegativeInt = Field(
        0, le=MOST_SEEDS, description="of everything that is drawn: random encoders, training, controls"
    )

    # Only the projection is ever trained: one linear layer between two frozen models
    freeze_lm: Literal[True] = True
    freeze_img_encoder: Literal[True] = True
    use_image_embed_layernorm: Literal[False] = False
    adapter_config: Annotated[dict[str, Any] | None, Field(max_length=0)] = None

    # Training
    train_dataset_dir: str | None = None
    eval_dataset_dir: str | None = None
    batch_size: PositiveInt = 256
    gradient_accumulation_steps: PositiveInt = 1
    train_steps: PositiveInt = 15_000
    lr: PositiveFloat = 8.0e-4
    min_lr: NonNegativeFloat = 0.0
    warmup_num_steps: PositiveInt = 100
    lr_decay_iters: PositiveInt | None = Field(None, description="None: constant after the warm-up")
    weight_decay: NonNegativeFloat = 0.0
    gradient_clipping: NonNegativeFloat = 1.0
    image_embed_dropout_prob: Annotated[float, Field(ge=0, lt=1, description="on the projected prompt")] = 0.0
    zero_stage: Annotated[int, Field(ge=0, le=2)] = 2
    save_every: PositiveInt | None = Field(None, description="steps between checkpoints; None: none are written")
    eval_every: PositiveInt | None = Field(None, description="steps between held-out losses; None: at the end alone")
    bf16: bool = Field(True, description="the frozen language model computes in bfloat16; the projection in float32")
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compute the language model's activations again in the backward pass: auto, where memory asks",
    )
    whiten: bool = Field(False, description="train on whitened encodings; folded into the one layer when it is saved")

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _yaml_switch(cls, value: object) -> object:
        """YAML reads a bare `on` or `off` as a boolean."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _schedule(self) -> "LimberConfig":
        """A learning rate that rises first, and falls after that."""
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}, the highest learning rate")
        if self.lr_decay_iters is not None and self.lr_decay_iters < self.warmup_num_steps:
            raise ValueError(
                f"lr_decay_iters {self.lr_decay_iters}: the decay would end before the warm-up of warmup_num_steps "
                f"{self.warmup_num_steps}"
            )
        return self


def config_names() -> list[str]:
    """Names of the configs that ship with the package, sorted."""
    return sorted(path.stem for path in configs_dir().glob("*.yml"))


def load_config(name_or_path: str | Path, **overrides: Any) -> LimberConfig:
    """Read a config by its name in `configs/` or by a path to a YAML file.

    Args:
        name_or_path: `clip_linear`, or a file.
        overrides: keys that replace the file's; None leaves the file's value.

    Raises:
        InputError: there is no such config, it is no YAML mapping, a key is unknown, or a value is out of its range.
    """
    path = _find(name_or_path)
    with reading(f"config {path}", "cannot be read as YAML"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InputError(f"config {path}: expected `key: value` lines, found {type(values).__name__}")

    overrides = {key: value for key, value in overrides.items() if value is not None}
    for key in (*values, *overrides):
        if key not in LimberConfig.model_fields and key not in KEYS_WITHOUT_EFFECT:
            known = {*LimberConfig.model_fields, *KEYS_WITHOUT_EFFECT}
            raise InputError(f"config {path}: unknown key {key!r}; nearest: {nearest(str(key), known)}")
    if ignored := sorted(KEYS_WITHOUT_EFFECT & values.keys()):
        logger.info("config %s: keys of LIMBER's that have no effect: %s", path.stem, ", ".join(ignored))

    kept = {key: value for key, value in values.items() if key not in KEYS_WITHOUT_EFFECT}
    try:
        return LimberConfig(**{"name": path.stem, **kept, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several keys together
            raise InputError(f"config {path}: {first['msg'].removeprefix('Value error, ')}") from error
        key = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {first['input']!r}"
        raise InputError(f"config {path}: {key}: {first['msg']}{found}") from error


def _find(name_or_path: str | Path) -> Path:
    if str(name_or_path) in config_names():
        return configs_dir() / f"{name_or_path}.yml"
    path = Path(name_or_path).expanduser()
    if os.path.isfile(path):  # pathlib raises on a name that is too long
        return path
    raise InputError(
        f"unknown config {str(name_or_path)!r}: neither a file nor a name in {configs_dir()}; "
        f"nearest: {nearest(path.stem, config_names())}"
    )
