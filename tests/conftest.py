"""A tiny random world: a GPT-J, three encoders, their configs and projections, on disk as the real ones are.

It is built once per session, in a folder of its own; nothing in it is trained, so no test may read meaning into it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, settings
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BeitConfig,
    BeitImageProcessorPil,
    BeitModel,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedTokenizerFast,
)

from limber_interp.config import load_config
from limber_interp.models.encoders import load_encoder
from limber_interp.models.hooked_gptj import lm_sha256
from limber_interp.models.limber import Limber, load
from limber_interp.models.projection import Projection
from tests.missing_packages import pytest_terminal_summary as pytest_terminal_summary

# How long an example takes says how busy the machine is
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SENTENCES = [
    "A picture of a dog on the grass.",
    "A picture of a cat to the left of a car.",
    "A picture of a small apple above a large boat.",
    "The dog is an animal, the car is a vehicle, the apple is food.",
    "A large cat and a small dog below the boat.",
]
CAPTIONS = ["A picture of a dog on the grass.", "A picture of a small apple above a large boat.", "A dog."]
N_PADDING_ROWS = 13
IMAGE_SIZE = 64
D_MODEL = 32


@dataclass(frozen=True)
class World:
    """Where the pieces lie. `configs` has one YAML per encoder: `clip`, `nfresnet`, `beit`."""

    root: Path

    @property
    def lm(self) -> Path:
        return self.root / "lm"

    def config(self, name: str = "clip") -> Path:
        return self.root / "configs" / f"{name}.yml"

    def encoder(self, name: str = "clip") -> Path:
        return self.root / "encoders" / name

    def projection(self, name: str = "clip") -> Path:
        return self.root / "projections" / f"{name}.safetensors"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("tiny_world"))
    torch.manual_seed(0)
    _write_lm(world.lm)
    _write_clip(world.encoder("clip"))
    _write_nfresnet(world.encoder("nfresnet"))
    _write_beit(world.encoder("beit"))
    for folder in ("configs", "projections"):
        (world.root / folder).mkdir()
    for name, extra in (("clip", {}), ("nfresnet", {"image_seq_len": 3}), ("beit", {})):
        values = {
            "encoder_name": f"emoji_{name}",
            "encoder_weights": str(world.encoder(name)),
            "image_size": IMAGE_SIZE,
            "lm_name": str(world.lm),
            "projection": str(world.projection(name)),
            **extra,
        }
        world.config(name).write_text(yaml.safe_dump(values))
        encoder = load_encoder(load_config(world.config(name)))
        projection = Projection(encoder.d_encoder, D_MODEL, extra.get("image_seq_len", 1))
        projection.linear.weight *= 10  # so that images differ by more than the bias has them in common
        hashes = {"encoder": encoder.sha256, "lm": lm_sha256(world.lm)}
        projection.save(world.projection(name), {"config": values, "hashes": hashes}, encoder.n_positions)
    return world


@pytest.fixture(scope="session")
def tiny(world: World) -> Limber:
    """The CLIP of the tiny world, its projection and its GPT-J, in float32."""
    return load(world.config("clip"))


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Three pictures of coloured squares, of different sizes and shapes."""
    random = np.random.default_rng(0)
    squares = [Image.fromarray(random.integers(0, 256, (3, 3, 3), dtype=np.uint8)) for _ in range(3)]
    sizes = ((96, 80), (64, 64), (50, 200))
    return [image.resize(size, Image.Resampling.NEAREST) for image, size in zip(squares, sizes, strict=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in LIMBER's format with nine images: one plain colour and one caption for each remainder of three.
    `image_path` stands in some only."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for index in range(9):
        colour = np.zeros((64, 64, 3), dtype=np.uint8)
        colour[..., index % 3] = 200 + index
        named = index % 2 == 0
        Image.fromarray(colour).save(root / "images" / (f"{index:03d}.png" if named else f"{index:03d}.jpg"))
        (root / "image_data" / str(index // 5)).mkdir(parents=True, exist_ok=True)
        record = {"captions": [CAPTIONS[index % 3]], "metadata": {"colour": index % 3}}
        if named:
            record["image_path"] = f"images/{index:03d}.png"
        (root / "image_data" / str(index // 5) / f"{index:03d}.json").write_text(json.dumps(record))
    return root


def _write_lm(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    config = GPTJConfig(
        vocab_size=len(fast) + N_PADDING_ROWS,
        n_positions=128,
        n_embd=D_MODEL,
        n_layer=3,
        n_head=4,
        rotary_dim=4,
        initializer_range=0.3,  # logits that differ, so that an argmax means something
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    lm = GPTJForCausalLM(config)
    with torch.no_grad():  # biases and norms start at 0 and 1, where half of all mistakes would not show
        for parameter in lm.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    assert len(fast) == 320
    assert sum(p.numel() for p in lm.parameters()) == 59_245
    lm.save_pretrained(folder)


def _write_clip(folder: Path) -> None:
    folder.mkdir(parents=True)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    clip = open_clip.CLIP(**model_cfg)
    with torch.no_grad():
        for module in clip.visual.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics as if trained, and branches that are not zero
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
    assert sum(p.numel() for p in clip.visual.parameters()) == 330_540
    preprocess_cfg = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    )
    save_file({name: t.contiguous() for name, t in clip.state_dict().items()}, folder / "model.safetensors")


def _write_nfresnet(folder: Path) -> None:
    folder.mkdir(parents=True)
    model_args = {"depths": [1, 1, 1, 1], "channels": [16, 16, 32, 32], "stem_chs": 8}
    tower = timm.create_model("nf_resnet50", num_classes=5, **model_args)
    assert sum(p.numel() for p in tower.parameters()) == 7_437
    described = {"architecture": "nf_resnet50", "model_args": model_args, "image_size": IMAGE_SIZE}
    (folder / "config.json").write_text(json.dumps(described))
    save_file(tower.state_dict(), folder / "model.safetensors")


def _write_beit(folder: Path) -> None:
    config = BeitConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=IMAGE_SIZE,
        patch_size=16,
        use_relative_position_bias=True,
    )
    tower = BeitModel(config, add_pooling_layer=False)
    assert sum(p.numel() for p in tower.parameters()) == 28_480
    tower.save_pretrained(folder)
    processor = BeitImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(folder)
