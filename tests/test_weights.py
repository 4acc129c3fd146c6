import json

import pytest
import torch
from safetensors.torch import save_file

from limber_interp.errors import InputError
from limber_interp.weights import load_tensors, read_json, read_tensors, tensors_sha256

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, dtype=torch.bfloat16)}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_safetensors_and_both_formats_of_torch_save(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert same(read_tensors(tmp_path), TENSORS)
    assert same(read_tensors(tmp_path / "model.safetensors"), TENSORS)
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert same(read_tensors(tmp_path / name), TENSORS)


def test_safetensors_are_preferred_to_pickles(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing")
    assert same(read_tensors(tmp_path), TENSORS)


def test_the_hash_is_that_of_the_tensors():
    expected = tensors_sha256(TENSORS)
    assert tensors_sha256(dict(reversed(TENSORS.items()))) == expected
    assert tensors_sha256({**TENSORS, "b": TENSORS["b"].T.contiguous().T}) == expected  # the same, strided otherwise
    assert tensors_sha256({**TENSORS, "b": TENSORS["b"].view(3, 2)}) != expected
    assert tensors_sha256({**TENSORS, "a": TENSORS["a"].half()}) != expected
    assert tensors_sha256({"b": TENSORS["b"], "c": TENSORS["a"]}) != expected


def test_loading_into_a_module():
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    load_tensors(target, source.half().state_dict(), "here")
    assert torch.equal(target.weight, source.weight.float())
    assert target.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a state dict .*, found list"),
        ({"a": 1}, "expected a state dict .*, found dict"),
    ],
)
def test_not_a_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04 no zip"])
def test_not_a_weight_file_at_all(tmp_path, content):
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: (not a file of plain tensors|truncated or not a safetensors)"):
            read_tensors(tmp_path / name)


def test_truncated_torch_save(tmp_path):
    torch.save(TENSORS, tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:-200])
    with pytest.raises(InputError, match="not a file of plain tensors"):
        read_tensors(tmp_path / "x.pt")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_tensors(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no weights; expected one of model.safetensors"):
        read_tensors(tmp_path)


def test_json(tmp_path):
    file = tmp_path / "x.json"
    with pytest.raises(InputError, match="x.json: no such file"):
        read_json(file)
    file.write_text(json.dumps({"a": 1}))
    assert read_json(file) == {"a": 1}
    file.write_text("[1]")
    with pytest.raises(InputError, match="expected a JSON object, found list"):
        read_json(file)
    file.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_json(file)
