"""LIMBER's own YAML files load unchanged: a flow mapping, remarks, and keys that its code never reads."""

import logging
from pathlib import Path

import pytest

from limber_interp.config import load_config
from limber_interp.models.encoders import Beit, ClipResNet, Encoder, NFResNet, blank_encoder

# Keys and values as published (github.com/jmerullo/limber, configs/); a value is YAML text
COMMON = {
    "freeze_img_encoder": "true",
    "batch_size": "256",
    "train_steps": "15000",
    "lr": "8.0e-4",
    "min_lr": "0.0",
    "lr_decay_iters": "300000",
    "image_enc_lr": "2.0e-6",
    "use_image_embed_layernorm": "false",
    "image_embed_dropout_prob": "0.1",
    "gradient_accumulation_steps": "8",
    "zero_stage": "2",
    "gradient_clipping": "1.0",
    "train_dataset_name": "'conceptual_captions'",
    "train_dataset_dir": "'/fsx/cc3m/training'",
    "eval_dataset_name": "'coco'",
    "eval_dataset_dir": "'/mnt/carp/datasets/mscoco/training'",
    "eval_every": "100",
}


def differing(encoder: str, size: int, positions: int, checkpoints: str, **more: str) -> dict[str, str]:
    sizes = {"image_size": str(size), "image_seq_len": str(positions)}
    return {"encoder_name": f"'{encoder}'", **sizes, "save": f'"{checkpoints}"', "load": f'"{checkpoints}"', **more}


BEIT, NFRN = "microsoft/beit-large-patch16-224-pt22k", "nfresnet50"
RANDOM, PRETRAINED = {"pretrained_img_encoder": "false"}, {"pretrained_img_encoder": "true"}
ENCODINGS = {"encs_dir": "'vanilla_viz_encodings/clip_resnet_large/'"}
PUBLISHED = {
    "beit_ft_linear": differing(f"{BEIT}-ft22k", 224, 196, "checkpoints/beit_ft_linear"),
    "beit_linear": differing(BEIT, 224, 196, "checkpoints/beit_linear"),
    "beit_random_linear": differing(BEIT, 224, 196, "checkpoints/beit_ft_linear", **RANDOM),
    "clip_linear": differing("clip_resnet_large", 384, 144, "/mnt/carp/checkpoints/fcrl_no_adapters", **ENCODINGS),
    "nfrn50_4096_linear": differing(NFRN, 384, 1, "checkpoints/nfrn50_linear", **PRETRAINED),
    "nfrn50_4096_random_linear": differing(NFRN, 384, 1, "checkpoints/nfrn50_random_linear", **RANDOM),
}
FAMILIES: dict[str, type[Encoder]] = {"beit": Beit, "clip": ClipResNet, "nfrn50": NFResNet}


@pytest.fixture(params=sorted(PUBLISHED))
def published(request, tmp_path) -> Path:
    """A file as published."""
    lines = [f"    {key}: {value}, # a remark" for key, value in {**PUBLISHED[request.param], **COMMON}.items()]
    path = tmp_path / f"{request.param}.yml"
    path.write_text("\n".join(["{", "    # a remark", *lines, "", "}"]))
    return path


def test_it_says_the_same_as_ours(published, caplog):
    with caplog.at_level(logging.INFO, logger="limber_interp"):
        config = load_config(published)
    ours = load_config(config.name)
    places = {"train_dataset_dir", "eval_dataset_dir", "projection"}
    assert config.model_dump(exclude=places) == ours.model_dump(exclude=places)
    assert (config.lr, config.lr_decay_iters, config.warmup_num_steps) == (8e-4, 300_000, 100)
    (line,) = caplog.messages
    ignored = "eval_dataset_name, image_enc_lr, load, save, train_dataset_name"
    encs_dir = "encs_dir, " if config.name == "clip_linear" else ""
    assert line == f"config {config.name}: keys of LIMBER's that have no effect: {encs_dir}{ignored}"


def test_it_names_an_encoder_of_the_right_family_and_shape(published):
    config = load_config(published)
    encoder = blank_encoder(config)
    assert type(encoder) is FAMILIES[config.name.partition("_")[0]]
    assert encoder.n_positions == config.image_seq_len
