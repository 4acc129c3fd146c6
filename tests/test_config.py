import pytest
import yaml
from pydantic import ValidationError

from limber_interp.config import KEYS_WITHOUT_EFFECT, LimberConfig, config_names, load_config
from limber_interp.errors import InputError
from limber_interp.resources import configs_dir

LIMBER = {
    "beit_ft_linear",
    "beit_linear",
    "beit_random_linear",
    "clip_linear",
    "nfrn50_4096_linear",
    "nfrn50_4096_random_linear",
}
EMBEDDED = {
    "emoji_beit_ft_linear",
    "emoji_beit_linear",
    "emoji_beit_random_linear",
    "emoji_clip_linear",
    "emoji_nfrn_linear",
    "emoji_nfrn_random_linear",
}

FINE = "encoder_name: beit\nimage_size: 8"


def test_the_shipped_configs_are_these_twelve():
    assert set(config_names()) == LIMBER | EMBEDDED
    assert len(list(configs_dir().iterdir())) == 12


@pytest.mark.parametrize("name", sorted(LIMBER | EMBEDDED))
def test_shipped_config(name: str):
    config = load_config(name)
    assert config.name == name
    assert config.pretrained_img_encoder is ("random" not in name)
    header = [line for line in (configs_dir() / f"{name}.yml").read_text().splitlines() if line.startswith("#")]
    for word in ("Paper:", "Command:", "Time:", "Expected:"):
        assert sum(word in line for line in header) == 1, word
    if name in EMBEDDED:
        assert config.projection == f"limber_weights/emoji/projections/{name}.safetensors"
        assert config.lm_name == "limber_weights/emoji/lm"
    elif name != "beit_random_linear":  # the one projection that was never published
        assert config.projection == f"limber_weights/{name}/proj.ckpt"


def test_the_embedded_configs_share_one_recipe():
    """A comparison of encoders is one only if nothing else differs."""
    encoder = {"name", "encoder_name", "encoder_weights", "pretrained_img_encoder", "image_seq_len", "projection"}
    recipes = [load_config(name).model_dump(exclude=encoder) for name in sorted(EMBEDDED)]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_every_key_without_effect_is_accepted(tmp_path):
    path = tmp_path / "all.yml"
    path.write_text(yaml.safe_dump({"encoder_name": "beit", "image_size": 8, **dict.fromkeys(KEYS_WITHOUT_EFFECT)}))
    assert load_config(path).name == "all"
    assert not KEYS_WITHOUT_EFFECT & LimberConfig.model_fields.keys()


def test_overrides_replace_and_none_leaves():
    config = load_config("emoji_clip_linear", seed=7, lm_name="/models/other", projection=None)
    assert (config.seed, config.lm_name) == (7, "/models/other")
    assert config.projection == load_config("emoji_clip_linear").projection


@pytest.mark.parametrize(("text", "read"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("'on'", "on")])
def test_yaml_reads_on_and_off_as_booleans(tmp_path, text: str, read: str):
    (tmp_path / "mine.yml").write_text(f"encoder_name: beit\nimage_size: 64\ngradient_checkpointing: {text}\n")
    assert load_config(tmp_path / "mine.yml").gradient_checkpointing == read


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_config("clip_linear").lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder_nam: beit", "unknown key 'encoder_nam'; nearest: encoder_name"),
        ("encoder_name: beit", "image_size: Field required"),
        ("encoder_name: beit\nimage_size: 0", "image_size: Input should be greater than 0, found 0"),
        ("encoder_name: beit\nimage_size: 8\nlr: .nan", "lr: Input should be .*, found nan"),
        ("encoder_name: beit\nimage_size: 8\nzero_stage: 3", "zero_stage: Input should be less than or equal to 2"),
        ("encoder_name: beit\nimage_size: 8\nfreeze_lm: false", "freeze_lm: Input should be True, found False"),
        ("encoder_name: beit\nimage_size: 8\nadapter_config: {mlp: {}}", "adapter_config: .* at most 0 items"),
        (f"{FINE}\nlr: 0.001\nmin_lr: 0.01", "min_lr 0.01 is above lr 0.001, the highest learning rate"),
        (
            f"{FINE}\nlr_decay_iters: 99",
            "lr_decay_iters 99: the decay would end before the warm-up of warmup_num_steps 100",
        ),
        ("- a\n- b", "expected `key: value` lines, found list"),
        ("", "expected `key: value` lines, found NoneType"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text: str, message: str):
    path = tmp_path / "bad.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_schedules_at_their_limits(tmp_path):
    (tmp_path / "mine.yml").write_text(FINE)
    config = load_config(tmp_path / "mine.yml", lr=0.01, min_lr=0.01, lr_decay_iters=7, warmup_num_steps=7)
    assert (config.lr_decay_iters, config.min_lr) == (7, 0.01)


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(InputError, match="unknown config 'clip_liner'.*nearest: clip_linear, emoji_clip_linear"):
        load_config("clip_liner")
