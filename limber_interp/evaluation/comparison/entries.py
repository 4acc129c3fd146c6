"""Who is compared: the configs named, the random encoders of the same language model, and two that see no image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limber_interp.config import LimberConfig, config_names, load_config
from limber_interp.errors import InputError
from limber_interp.resources import resolve

BLIND = "blind"
MEAN_IMAGE = "mean image"


@dataclass(frozen=True)
class Contestant:
    """An entry before it is run.

    Attributes:
        config: whose parts are used.
        shown: what stands in the prompt where the image would: its own soft prompt, nothing, or the mean soft prompt.
    """

    name: str
    config: LimberConfig
    shown: Literal["image", "nothing", "mean"]

    @property
    def kind(self) -> Literal["trained", "random", "control"]:
        if self.shown != "image":
            return "control"
        return "trained" if self.config.pretrained_img_encoder else "random"

    @property
    def description(self) -> str:
        match self.shown:
            case "nothing":
                return "no image: the text alone"
            case "mean":
                return f"the mean soft prompt of all images through {self.config.name}, whatever the image"
        weights = "" if self.config.pretrained_img_encoder else f" with random weights (seed {self.config.seed})"
        return f"{self.config.encoder_name}{weights} through its projection"


def load_configs(
    configs: Iterable[str | Path | LimberConfig], lm: str | None = None
) -> tuple[list[LimberConfig], list[str]]:
    """The configs named, and those in `configs/` with random encoders and the same language model.

    Args:
        lm: replaces the language model of all.

    Returns:
        The configs, and a line on each random encoder that is left out, because its files are not there.

    Raises:
        InputError: no such config, none is named, or two have one name.
    """
    named = [config if isinstance(config, LimberConfig) else load_config(config) for config in configs]
    if not named:
        raise InputError("no config to compare: name one or more")
    names = [config.name for config in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two configs are named {twice[0]}: give one of them another `name`")
    added, notes = [], []
    for config in map(load_config, config_names()):
        if config.pretrained_img_encoder or config.name in names:
            continue
        if config.lm_name not in {other.lm_name for other in named}:
            continue
        if reason := _unusable(config):
            notes.append(f"{config.name} (random encoder) is left out: {reason}")
        else:
            added.append(config)
    if not added and not notes and all(config.pretrained_img_encoder for config in named):
        notes.append("no random encoder is among the entries: none in configs/ goes with this language model")
    found = [*named, *added]
    return [config.model_copy(update={"lm_name": lm}) for config in found] if lm else found, notes


def contestants(configs: Sequence[LimberConfig]) -> list[Contestant]:
    """Each config, and for each language model one that sees nothing and one that sees the mean image, with the parts
    of its first config."""
    shown = [Contestant(config.name, config, "image") for config in configs]
    first_of = {config.lm_name: config for config in reversed(configs)}
    for lm, config in reversed(first_of.items()):
        suffix = f", {Path(lm).name}" if len(first_of) > 1 else ""
        shown.append(Contestant(f"{BLIND}{suffix}", config, "nothing"))
        shown.append(Contestant(f"{MEAN_IMAGE}{suffix}", config, "mean"))
    return shown


def _unusable(config: LimberConfig) -> str | None:
    """Why a config cannot be loaded, as far as its files say; weights that a library fetches are not looked for."""
    if config.projection is None:
        return "its projection was never published, and none is named"
    files = (config.projection, config.encoder_weights)
    missing = [file for file in files if file is not None and not resolve(file).exists()]
    return f"{missing[0]} is not there" if missing else None
