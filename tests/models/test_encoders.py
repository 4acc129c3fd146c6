import json
import logging
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BeitImageProcessorPil, BeitModel

from limber_interp.config import LimberConfig, load_config
from limber_interp.errors import InputError
from limber_interp.models.encoders import Beit, encoder_names, load_encoder

NAMES = ("clip", "nfresnet", "beit")


def load(world, name: str, **overrides):
    return load_encoder(load_config(world.config(name), **overrides))


def pixels_of(encoder, images) -> torch.Tensor:
    return torch.stack([encoder.preprocess(image) for image in images])


# The tiny encoders equal the bare libraries


@pytest.mark.parametrize(
    ("name", "grid", "n_positions", "d_encoder"),
    [("clip", (2, 2), 4, 256), ("nfresnet", None, 1, 32), ("beit", (4, 4), 16, 24)],
)
def test_shapes(world, images, name, grid, n_positions, d_encoder):
    encoder = load(world, name)
    assert (encoder.grid, encoder.n_positions, encoder.d_encoder) == (grid, n_positions, d_encoder)
    assert encoder(pixels_of(encoder, images)).shape == (3, n_positions, d_encoder)


def test_clip_equals_open_clip(world, images):
    folder = world.encoder("clip")
    clip = open_clip.CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]).eval()
    clip.load_state_dict(load_file(folder / "model.safetensors"))
    encoder = load(world, "clip")
    pixels = pixels_of(encoder, images)
    with torch.no_grad():
        feature_map = clip.visual.forward_intermediates(pixels, indices=1)["image_intermediates"][-1]
    assert feature_map.shape == (3, 256, 2, 2)
    for row in range(2):
        for col in range(2):
            torch.testing.assert_close(encoder(pixels)[:, row * 2 + col], feature_map[:, :, row, col])


def test_nfresnet_equals_timm(world, images):
    folder = world.encoder("nfresnet")
    described = json.loads((folder / "config.json").read_text())
    tower = timm.create_model(described["architecture"], num_classes=5, **described["model_args"]).eval()
    tower.load_state_dict(load_file(folder / "model.safetensors"))
    encoder = load(world, "nfresnet")
    pixels = pixels_of(encoder, images)
    with torch.no_grad():
        expected = tower.forward_features(pixels).mean(dim=(2, 3))
    torch.testing.assert_close(encoder(pixels)[:, 0], expected)


def test_beit_equals_transformers(world, images):
    encoder = load(world, "beit")
    pixels = pixels_of(encoder, images)
    with torch.no_grad():
        tower = BeitModel.from_pretrained(world.encoder("beit"), add_pooling_layer=False).eval()
        expected = tower(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(pixels), expected)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_and_in_eval_mode(world, name):
    encoder = load(world, name)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_one_image_is_encoded_as_in_a_batch(world, images, name):
    encoder = load(world, name)
    pixels = pixels_of(encoder, images)
    torch.testing.assert_close(encoder(pixels[1:2]), encoder(pixels)[1:2])


# Preprocessing


def test_clip_preprocessing_equals_open_clips(world, images):
    encoder = load(world, "clip")
    reference = open_clip.image_transform(64, is_train=False, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    for image in images:
        torch.testing.assert_close(encoder.preprocess(image), reference(image))


def test_beit_preprocessing_equals_its_image_processor(world, images):
    encoder = load(world, "beit")
    processor = BeitImageProcessorPil.from_pretrained(world.encoder("beit"))
    for image in images:
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(encoder.preprocess(image), expected)


def test_nfresnet_sees_plain_pixels(world):
    """Short side resized, centre cropped, in [0, 1], neither normalised nor augmented at random as LIMBER does."""
    encoder = load(world, "nfresnet")
    wide = np.zeros((64, 192, 3), dtype=np.uint8)
    wide[:, 64:128] = (255, 128, 0)
    pixels = encoder.preprocess(Image.fromarray(wide))
    expected = torch.tensor([1, 128 / 255, 0]).view(3, 1, 1).expand(3, 64, 64)
    torch.testing.assert_close(pixels, expected)
    assert torch.equal(pixels, encoder.preprocess(Image.fromarray(wide)))


def described_anew(world, tmp_path, name: str, file: str, **changed) -> str:
    """A copy of an encoder's folder whose description says something else; None leaves a key out."""
    folder = Path(shutil.copytree(world.encoder(name), tmp_path / name))
    described = {**json.loads((folder / file).read_text()), **changed}
    (folder / file).write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
    return str(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"do_normalize": False},
        {"do_normalize": False, "image_mean": None, "image_std": None},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"do_center_crop": True, "crop_size": 64},
        {"do_center_crop": True, "size": {"height": 75, "width": 91}, "crop_size": {"height": 64, "width": 64}},
        {"do_center_crop": True, "size": {"shortest_edge": 75}, "crop_size": 64},
        {"do_center_crop": True, "size": 49, "crop_size": 64},  # smaller than the crop, which pads
        {"do_center_crop": True, "do_resize": False, "crop_size": 64, "resample": None},
        {"size": 64, "resample": 2},
        {"size": [64, 64], "do_reduce_labels": True},
        {"image_mean": 0.25, "image_std": [0.5, 0.25, 0.125]},
    ],
    ids=str,
)
def test_beits_preprocessor_is_obeyed(world, images, tmp_path, changed):
    """All of these keys were read over, and pixels were off by up to 508."""
    folder = described_anew(world, tmp_path, "beit", "preprocessor_config.json", **changed)
    encoder = load(world, "beit", encoder_weights=folder)
    processor = BeitImageProcessorPil.from_pretrained(folder)
    odd = Image.fromarray(np.random.default_rng(2).integers(0, 256, (99, 58, 3), dtype=np.uint8))
    for image in [*images, odd]:
        pixels = encoder.preprocess(image)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(pixels, expected, check_dtype=False)  # of 8 bits, where nothing is done to them


@pytest.mark.parametrize("changed", [{"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"do_normalize": False}])
def test_visible_undoes_what_the_preprocessor_says(world, tmp_path, changed):
    folder = described_anew(world, tmp_path, "beit", "preprocessor_config.json", **changed)
    encoder = load(world, "beit", encoder_weights=folder)
    square = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(encoder.visible(encoder.preprocess(Image.fromarray(square))), square)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 96}, "give images of 96 x 96 pixels; the encoder takes 64 x 64"),
        ({"size": {"shortest_edge": 64}}, "give images of any number of pixels; the encoder takes 64 x 64"),
        ({"do_resize": False}, "give images of any number of pixels; the encoder takes 64 x 64"),
        ({"do_center_crop": True, "crop_size": 32}, "give images of 32 x 32 pixels; the encoder takes 64 x 64"),
        ({"size": {"longest_edge": 64}}, "size: expected a number, or height and width, or shortest_edge; found"),
        ({"do_center_crop": True, "crop_size": 0.5}, "crop_size: expected a number, or height and width; found 0.5"),
        ({"do_normalize": "false"}, "do_normalize: expected true or false, found 'false'"),
        ({"rescale_factor": "1/255"}, "rescale_factor: expected a number above 0, found '1/255'"),
        ({"resample": [3]}, r"found resample \[3\], expected 2 or 3"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean: expected three numbers, found \[0.5, 0.5\]"),
        ({"image_std": 0}, "image_std: expected numbers above 0, found 0"),
        ({"image_std": None}, "key 'image_std' is missing"),
    ],
    ids=str,
)
def test_a_preprocessor_that_cannot_be_obeyed(world, tmp_path, changed, message):
    folder = described_anew(world, tmp_path, "beit", "preprocessor_config.json", **changed)
    with pytest.raises(InputError, match=f"^{folder}/preprocessor_config.json: .*{message}"):
        load(world, "beit", encoder_weights=folder)


def test_keys_that_nobody_knows_are_named(world, tmp_path, caplog):
    folder = described_anew(world, tmp_path, "beit", "preprocessor_config.json", do_thumbnail=True, do_pad=True)
    load(world, "beit", encoder_weights=folder)
    assert caplog.messages == [
        f"{folder}/preprocessor_config.json: keys that are not known, and not used: do_thumbnail"
    ]


@pytest.mark.parametrize(
    "preprocess_cfg",
    [
        {},
        {"interpolation": "bilinear", "resize_mode": "squash", "mean": 0.5},
        {"interpolation": "random", "resize_mode": "shortest", "std": [0.5, 0.25, 0.125], "size": 7, "fill_color": 9},
    ],
    ids=str,
)
def test_clips_preprocessing_is_what_its_file_says(world, images, tmp_path, preprocess_cfg):
    """Only mean and std were read."""
    folder = described_anew(world, tmp_path, "clip", "open_clip_config.json", preprocess_cfg=preprocess_cfg)
    cfg = open_clip.transform.merge_preprocess_dict(open_clip.transform.PreprocessCfg(), preprocess_cfg)
    # The size is the architecture's: open_clip sets it last
    reference = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**{**cfg, "size": 64}), is_train=False
    )
    encoder = load(world, "clip", encoder_weights=folder)
    for image in images:
        torch.testing.assert_close(encoder.preprocess(image), reference(image))


@pytest.mark.parametrize(
    ("preprocess_cfg", "message"),
    [
        ({"resize_mode": "longest"}, "resize_mode: expected 'shortest' or 'squash', found 'longest'"),
        ({"interpolation": ["bicubic"]}, r"interpolation: expected 'bicubic' or 'bilinear', found \['bicubic'\]"),
        ({"mode": "L"}, "mode: expected 'RGB', found 'L'"),
        ({"std": [1, 1, float("nan")]}, "std: expected three numbers"),
        ([0.5], r"expected an object, found \[0.5\]"),
    ],
    ids=str,
)
def test_a_preprocess_cfg_that_cannot_be_obeyed(world, tmp_path, preprocess_cfg, message):
    folder = described_anew(world, tmp_path, "clip", "open_clip_config.json", preprocess_cfg=preprocess_cfg)
    with pytest.raises(InputError, match=f"^{folder}/open_clip_config.json: preprocess_cfg: {message}"):
        load(world, "clip", encoder_weights=folder)


def test_nfresnet_says_what_it_does_not_do(world, images, tmp_path, caplog):
    """LIMBER gives plain pixels, whatever timm's description says."""
    timms = {"input_size": [3, 64, 64], "mean": [0.485, 0.456, 0.406], "crop_pct": 0.94, "url": ""}
    folder = described_anew(world, tmp_path, "nfresnet", "config.json", pretrained_cfg=timms)
    with caplog.at_level(logging.INFO, logger="limber_interp"):
        encoder = load(world, "nfresnet", encoder_weights=folder)
    assert caplog.messages == [
        f"{folder}: LIMBER gives plain pixels; pretrained_cfg's input_size, mean, crop_pct are not used"
    ]
    assert torch.equal(encoder.preprocess(images[0]), load(world, "nfresnet").preprocess(images[0]))


def test_preprocessing_opens_images_as_everything_does(world):
    """`Image.convert` alone clips all but the first 256 of 65,536 grays to white."""
    gray = Image.fromarray(np.full((64, 64), 257 * 9, dtype=np.uint16))
    encoder = load(world, "nfresnet")
    torch.testing.assert_close(encoder.preprocess(gray), torch.full((3, 64, 64), 9 / 255))


@pytest.mark.parametrize("name", NAMES)
def test_visible_undoes_the_normalisation(world, name):
    encoder = load(world, name)
    square = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(encoder.visible(encoder.preprocess(Image.fromarray(square))), square)


def test_grey_images_become_rgb(world):
    assert load(world, "clip").preprocess(Image.new("L", (70, 64), 9)).shape == (3, 64, 64)


# Random weights


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_are_those_of_the_seed(world, images, name):
    state = torch.get_rng_state()
    first, again = (load(world, name, pretrained_img_encoder=False, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    pixels = pixels_of(first, images)
    assert torch.equal(first(pixels), again(pixels))
    assert first.sha256 == again.sha256
    other, trained = load(world, name, pretrained_img_encoder=False, seed=4), load(world, name)
    assert len({first.sha256, other.sha256, trained.sha256}) == 3
    assert not torch.allclose(first(pixels), other(pixels))


def test_the_hash_of_drawn_weights_survives_another_machines_rounding(world):
    encoder = load(world, "nfresnet", pretrained_img_encoder=False)
    expected = encoder.sha256
    rounded = load(world, "nfresnet", pretrained_img_encoder=False)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.mul_(1 + 1e-6)
    assert rounded.sha256 == expected


def test_the_hash_of_trained_weights_notices_one_value(world):
    encoder, changed = load(world, "clip"), load(world, "clip")
    with torch.no_grad():
        changed.tower.conv1.weight[0, 0, 0, 0] *= 1.01
    assert changed.sha256 != encoder.sha256


# Where the weights are


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_folder_as_the_hub_has_it_for_clip(world, tmp_path, name):
    """It holds the image tower once more under timm's names, in the file that other models have their weights in."""
    folder = Path(shutil.copytree(world.encoder("clip"), tmp_path / "clip"))
    tensors = load_file(folder / "model.safetensors")
    (save_file if name.endswith(".safetensors") else torch.save)(tensors, folder / name)
    save_file({"stem.conv1.conv.weight": torch.zeros(1)}, folder / "model.safetensors")
    assert load(world, "clip", encoder_weights=str(folder)).sha256 == load(world, "clip").sha256


# Wrong input


def test_unknown_name(world):
    with pytest.raises(InputError, match="unknown encoder 'clip_resnet_larg'; nearest: clip_resnet_large"):
        load(world, "clip", encoder_name="clip_resnet_larg")


def test_wrong_image_size(world):
    with pytest.raises(InputError, match="emoji_clip takes images of 64 x 64 pixels; found image_size 96"):
        load(world, "clip", image_size=96)


def test_missing_folder(world, tmp_path):
    with pytest.raises(InputError, match="encoder weights .*nowhere: no such file or folder; put them there"):
        load(world, "clip", encoder_weights=str(tmp_path / "nowhere"))


def test_no_folder_named(world):
    config = LimberConfig(encoder_name="emoji_nfresnet", image_size=64)
    with pytest.raises(InputError, match="encoder_weights names no folder .* expected one that holds config.json"):
        load_encoder(config)


def test_description_without_a_key(world, tmp_path):
    folder = Path(shutil.copytree(world.encoder("nfresnet"), tmp_path / "nfresnet"))
    (folder / "config.json").write_text('{"architecture": "nf_resnet50", "image_size": 64}')
    with pytest.raises(InputError, match="config.json: key 'model_args' is missing"):
        load(world, "nfresnet", encoder_weights=str(folder))


def test_a_resampling_that_is_not_known(world, tmp_path):
    folder = Path(shutil.copytree(world.encoder("beit"), tmp_path / "beit"))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, "resample": 5}))
    with pytest.raises(InputError, match="preprocessor_config.json: found resample 5, expected 2 or 3"):
        load(world, "beit", encoder_weights=str(folder))


@pytest.mark.parametrize("name", NAMES)
def test_truncated_weights(world, tmp_path, name):
    folder = Path(shutil.copytree(world.encoder(name), tmp_path / name))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        load(world, name, encoder_weights=str(folder))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("clip", "visual.conv1.weight"), ("nfresnet", "stem.conv.weight"), ("beit", "embeddings.cls_token")],
)
def test_wrong_shape(world, tmp_path, name, tensor):
    folder = Path(shutil.copytree(world.encoder(name), tmp_path / name))
    tensors = load_file(folder / "model.safetensors")
    shape = tuple(tensors[tensor].shape)
    tensors[tensor] = torch.zeros(1, 2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    message = rf"tensor '{tensor.removeprefix('visual.')}': found shape \(1, 2\), expected \({shape[0]}, "
    with pytest.raises(InputError, match=message):
        load(world, name, encoder_weights=str(folder))


def test_weights_that_only_the_hub_has(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, size in (
        ("clip", 224),
        ("clip_resnet_large", 384),
        ("nfresnet50", 384),
        ("microsoft/beit-large-patch16-224-pt22k", 224),
    ):
        with pytest.raises(InputError, match="weights cannot be had: .* name the folder in encoder_weights"):
            load_encoder(LimberConfig(encoder_name=name, image_size=size))


def test_limbers_names_are_known():
    limbers = {"clip", "clip_resnet", "clip_resnet_large", "nfresnet50", *Beit.ARCHITECTURES}
    assert limbers < set(encoder_names())


# Weights as people have them


@pytest.mark.parametrize("name", NAMES)
def test_weights_as_a_training_script_writes_them(world, images, tmp_path, name):
    """Under a name, `module.` before each tensor, and no counts of a BatchNorm's batches."""
    folder = Path(shutil.copytree(world.encoder(name), tmp_path / "encoder"))
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state = {f"module.{key}": t for key, t in stored.items() if not key.endswith("num_batches_tracked")}
    torch.save({"state_dict": state, "epoch": 3}, folder / "pytorch_model.bin")
    found, expected = load(world, name, encoder_weights=str(folder)), load(world, name)
    pixels = pixels_of(expected, images)
    assert torch.equal(found(pixels), expected(pixels))
    assert found.sha256 == expected.sha256


@pytest.mark.parametrize(
    ("name", "file", "path", "value", "message"),
    [
        ("clip", "open_clip_config", ("model_cfg", "vision_cfg", "layers"), [1, "1", 1, 1], "describes no CLIP ResNet"),
        ("clip", "open_clip_config", ("model_cfg", "vision_cfg", "width"), 0, "describes no CLIP ResNet"),
        ("clip", "open_clip_config", ("model_cfg",), [], "describes no CLIP ResNet"),
        ("clip", "open_clip_config", ("model_cfg", "vision_cfg", "width"), 10**6, "found the number 1e[+]06"),
        ("clip", "open_clip_config", ("model_cfg", "vision_cfg", "width"), 4096, "parameters, more than its weights"),
        ("nfresnet", "config", ("model_args", "depths"), [1, "1", 1, 1], "describes no encoder that can be built"),
        ("nfresnet", "config", ("model_args",), {"checkpoint_path": "x"}, "must not name files, found checkpoint_path"),
        ("nfresnet", "config", ("architecture",), 3, "expected a name of timm's, its arguments"),
        (
            "nfresnet",
            "config",
            ("model_args", "depths"),
            [1, 2000, 1],
            "depths: found 2002 layers, expected at",
        ),
        ("clip", "open_clip_config", ("model_cfg", "vision_cfg", "layers"), [1, 1, 1, 900], "layers: found 903 layers"),
        ("beit", "config", ("num_hidden_layers",), 1000, "num_hidden_layers: found 1000 layers, expected at most 200"),
        ("beit", "config", ("hidden_size",), "24", "describes no BEiT"),
        ("beit", "config", ("image_size",), [64, 64], "describes no BEiT"),
        ("beit", "config", ("intermediate_size",), 10_000_000, "found the number 1e[+]07"),
    ],
)
def test_a_description_of_no_encoder(world, tmp_path, name, file, path, value, message):
    """Errors of other libraries, or memory without end, before."""
    folder = Path(shutil.copytree(world.encoder(name), tmp_path / "encoder"))
    described = inside = json.loads((folder / f"{file}.json").read_text())
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    (folder / f"{file}.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=message) as caught:
        load(world, name, encoder_weights=str(folder))
    assert str(folder) in str(caught.value)
