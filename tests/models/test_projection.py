import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from limber_interp.errors import InputError
from limber_interp.models.projection import Projection, load_projection
from limber_interp.published import provenance

D_ENCODER, D_MODEL = 5, 3


@pytest.fixture
def linear() -> torch.nn.Linear:
    return torch.nn.Linear(D_ENCODER, D_MODEL)


def test_one_linear_layer_per_position():
    projection = Projection(D_ENCODER, D_MODEL)
    encoding = torch.randn(2, 4, D_ENCODER)
    expected = encoding @ projection.linear.weight.T + projection.linear.bias
    torch.testing.assert_close(projection(encoding), expected)
    assert not projection.training
    assert not any(p.requires_grad for p in projection.parameters())


def test_several_rows_from_one_vector():
    """The first d_model outputs are the first row, as in LIMBER's `b (s d) -> b s d`."""
    projection = Projection(D_ENCODER, D_MODEL, n_tokens=4)
    encoding = torch.randn(2, 1, D_ENCODER)
    rows = projection(encoding)
    assert rows.shape == (2, 4, D_MODEL)
    torch.testing.assert_close(rows, projection.linear(encoding[:, 0]).reshape(2, 4, D_MODEL))


def test_a_saved_projection_is_the_same(tmp_path):
    projection = Projection(D_ENCODER, D_MODEL, n_tokens=2)
    manifest = {"hashes": {"encoder": "ab", "lm": "cd"}, "steps": 3}
    projection.save(tmp_path / "p.safetensors", manifest, n_positions=1)
    loaded = load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL, n_tokens=2)
    shapes = {"d_encoder": D_ENCODER, "d_model": D_MODEL, "n_tokens": 2, "n_positions": 1}
    assert loaded.manifest == {**manifest, "shapes": shapes}
    assert loaded.sha256 == projection.sha256
    assert loaded.trained_with == {"encoder": "ab", "lm": "cd"}
    encoding = torch.randn(1, 1, D_ENCODER)
    torch.testing.assert_close(loaded(encoding), projection(encoding))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_saved_projection_can_be_read_by_whom_the_umask_lets(tmp_path):
    Projection(D_ENCODER, D_MODEL).save(tmp_path / "p.safetensors", {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "p.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_projection_knows_what_it_was_trained_with():
    projection = Projection(
        2, 2, manifest={"hashes": {"encoder": "a" * 64}, "config": {"encoder_name": "beit", "lm_name": "x"}}
    )
    projection.check_fit("encoder", "beit", "a" * 64)
    with pytest.raises(InputError, match=r"with encoder beit \(sha256 aaaaaaaaaaaa…\), found clip \(bbbbbbbbbbbb…\)"):
        projection.check_fit("encoder", "clip", "b" * 64)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"d_encoder": 7},
            r"with encoder beit \(d_encoder 5, n_positions 9\), found clip \(d_encoder 7, n_positions 9\): use",
        ),
        (
            {"n_positions": 16},
            r"with encoder beit \(d_encoder 5, n_positions 9\), found clip \(d_encoder 5, n_positions 16\): use",
        ),
        ({"d_model": 4}, r"trained with lm gpt-j \(d_model 3\), found other-j \(d_model 4\): use "),
        ({"n_tokens": 1}, r"makes 2 rows of the prompt from each vector, found image_seq_len 1 in the config"),
    ],
)
def test_shapes_that_do_not_fit_name_both_sides(tmp_path, asked, message):
    manifest = {"config": {"encoder_name": "beit", "lm_name": "gpt-j"}}
    Projection(D_ENCODER, D_MODEL, n_tokens=2).save(tmp_path / "p.safetensors", manifest, n_positions=9)
    fits = {"d_encoder": D_ENCODER, "d_model": D_MODEL, "n_tokens": 2, "n_positions": 9}
    load_projection(tmp_path / "p.safetensors", **fits)
    with pytest.raises(InputError, match=message):
        load_projection(tmp_path / "p.safetensors", **{**fits, **asked}, between=("clip", "other-j"))


def test_a_manifest_without_shapes_is_checked_by_the_tensors(tmp_path, linear):
    manifest = {"config": {"encoder_name": "beit"}, "hashes": {"encoder": "ab"}}
    save_file(linear.state_dict(), tmp_path / "p.safetensors", {"manifest": json.dumps(manifest)})
    assert load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL, n_positions=9).manifest == manifest
    with pytest.raises(InputError, match=r"tensor 'weight': found shape \(3, 5\), expected \(3, 7\)"):
        load_projection(tmp_path / "p.safetensors", 7, D_MODEL, n_positions=9)


def test_limbers_checkpoint(tmp_path, linear):
    torch.save(linear.half().state_dict(), tmp_path / "proj.ckpt")
    projection = load_projection(tmp_path / "proj.ckpt", D_ENCODER, D_MODEL)
    assert projection.manifest == {"source": provenance(tmp_path / "proj.ckpt")}
    assert projection.trained_with == {}
    assert projection.published is None
    assert torch.equal(projection.linear.weight, linear.weight.float())


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_would_run_code_does_not(tmp_path, linear, save):
    trace = tmp_path / "code ran"
    save({**linear.state_dict(), "more": Payload(trace)}, tmp_path / "proj.ckpt")
    with pytest.raises(InputError, match="not a file of plain tensors, and nothing in it was run"):
        load_projection(tmp_path / "proj.ckpt", D_ENCODER, D_MODEL)
    assert not trace.exists()


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"p.ckpt: no such file; put it there, or give --projection"):
        load_projection(tmp_path / "p.ckpt", D_ENCODER, D_MODEL)


def test_wrong_shape(tmp_path, linear):
    save_file(linear.state_dict(), tmp_path / "p.safetensors")
    with pytest.raises(InputError, match=r"tensor 'weight': found shape \(3, 5\), expected \(3, 7\)"):
        load_projection(tmp_path / "p.safetensors", 7, D_MODEL)


def test_missing_tensor(tmp_path, linear):
    save_file({"weight": linear.weight.detach()}, tmp_path / "p.safetensors")
    with pytest.raises(InputError, match=r"tensor 'bias' is missing, expected with shape \(3,\)"):
        load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(tmp_path, linear, value):
    with torch.no_grad():
        linear.weight[1, 2] = value
    torch.save(linear.state_dict(), tmp_path / "p.ckpt")
    with pytest.raises(InputError, match="tensor 'weight': found 1 of 15 values NaN or infinite"):
        load_projection(tmp_path / "p.ckpt", D_ENCODER, D_MODEL)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "its manifest is not JSON"),
        ("[1]", "its manifest is no JSON object with objects as its config, hashes, shapes, source"),
        ('{"hashes": 1}', "no JSON object with objects"),
        ('{"source": "proj.ckpt"}', "no JSON object with objects"),
        ('{"shapes": [144]}', "no JSON object with objects"),
    ],
)
def test_a_manifest_of_another_form(tmp_path, linear, manifest, message):
    save_file(linear.state_dict(), tmp_path / "p.safetensors", {"manifest": manifest})
    with pytest.raises(InputError, match=message):
        load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL)


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        Projection(D_ENCODER, D_MODEL).save(tmp_path / "p.safetensors", {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_travels_as_json_metadata(tmp_path):
    Projection(D_ENCODER, D_MODEL).save(tmp_path / "p.safetensors", {"a": [1]})
    header_size = int.from_bytes((tmp_path / "p.safetensors").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "p.safetensors").read_bytes()[8 : 8 + header_size])
    assert json.loads(header["__metadata__"]["manifest"])["a"] == [1]
    assert load_file(tmp_path / "p.safetensors").keys() == {"weight", "bias"}


@pytest.mark.parametrize("wrapped", [{"state_dict": ...}, {"model": ..., "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_as_a_training_script_writes_it(tmp_path, linear, wrapped, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in linear.state_dict().items()}
    torch.save({key: state if value is ... else value for key, value in wrapped.items()}, tmp_path / "proj.ckpt")
    found = load_projection(tmp_path / "proj.ckpt", D_ENCODER, D_MODEL)
    assert torch.equal(found.linear.weight, linear.weight)
    assert torch.equal(found.linear.bias, linear.bias)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"hashes": {"lm": 3}}, "has 3 under hashes.lm, expected a text or null"),
        ({"source": {"published": ["x"]}}, r"has \['x'\] under source.published"),
        ({"shapes": {"d_model": "3"}}, "has '3' under shapes.d_model, expected a number or null"),
    ],
)
def test_a_manifest_with_values_of_other_types(tmp_path, linear, manifest, message):
    """They were raised over once the projection was held against an encoder."""
    save_file(linear.state_dict(), tmp_path / "p.safetensors", {"manifest": json.dumps(manifest)})
    with pytest.raises(InputError, match=f"p.safetensors: its manifest {message}"):
        load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL)


def test_whole_numbers_are_no_projection(tmp_path, linear):
    save_file(
        {name: tensor.to(torch.int32) for name, tensor in linear.state_dict().items()}, tmp_path / "p.safetensors"
    )
    with pytest.raises(InputError, match="tensor '(weight|bias)': found int32, expected floats"):
        load_projection(tmp_path / "p.safetensors", D_ENCODER, D_MODEL)
