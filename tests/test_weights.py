import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from limber_interp.errors import InputError
from limber_interp.weights import load_tensors, read_json, read_tensors, tensors_sha256, weight_files

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


# As people have them


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "module"])
def test_a_state_dict_beside_an_optimizer(tmp_path, wrapper, caplog):
    torch.save({wrapper: TENSORS, "optimizer": {"lr": 0.1, "steps": [1, 2]}, "epoch": 3}, tmp_path / "x.pt")
    with caplog.at_level("INFO"):
        assert same(read_tensors(tmp_path / "x.pt"), TENSORS)
    assert f"weights taken from '{wrapper}' in it; beside it, and left alone: epoch, optimizer" in caplog.text


def test_a_state_dict_in_two_wrappers(tmp_path):
    torch.save({"model": {"state_dict": TENSORS, "step": 1}, "args": None}, tmp_path / "x.pt")
    assert same(read_tensors(tmp_path / "x.pt"), TENSORS)
    torch.save({"model": TENSORS, "state_dict": TENSORS}, tmp_path / "both.pt")  # which is meant, nobody can know
    with pytest.raises(InputError, match="expected a state dict .*, found dict"):
        read_tensors(tmp_path / "both.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_as_data_parallel_and_compiled_modules_have_them(tmp_path, prefix, caplog):
    prefixed = {f"{prefix}{name}": tensor for name, tensor in TENSORS.items()}
    torch.save(prefixed, tmp_path / "x.pt")
    save_file(prefixed, tmp_path / "x.safetensors")
    for name in ("x.pt", "x.safetensors"):
        with caplog.at_level("INFO"):
            found = read_tensors(tmp_path / name)
        assert same(found, TENSORS)
        assert tensors_sha256(found) == tensors_sha256(TENSORS)
    assert "before the name of every tensor left away" in caplog.text
    mixed = {"module.a": TENSORS["a"], "b": TENSORS["b"]}
    torch.save(mixed, tmp_path / "mixed.pt")
    assert read_tensors(tmp_path / "mixed.pt").keys() == mixed.keys()


def test_a_batch_norm_without_the_count_of_its_batches():
    """Files from before torch 0.4.1 lack it."""
    source, target = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    source.running_mean.copy_(torch.arange(3.0))
    state = {name: tensor for name, tensor in source.state_dict().items() if name != "num_batches_tracked"}
    load_tensors(target, state, "here")
    assert torch.equal(target.running_mean, source.running_mean)
    del state["running_mean"]
    with pytest.raises(InputError, match="here: tensor 'running_mean' is missing"):
        load_tensors(target, state, "here")


# As they break


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02R.",  # IndexError: a call with nothing on the stack
        b"\x80\x02h\x05.",  # KeyError: what was never remembered
        b"\x80\x02J\x01.",  # struct.error: half a number
        b"\x80\x02X\xff\xff\xff\x7f.",  # a text of two billion letters
        b"\x80\x02K\x01K\x02b.",  # AssertionError or another: attributes of a number
        b"\x80\x02c\xff\xfe\n\n.",  # UnicodeDecodeError
        b"\x80\x63.",  # a protocol that is none
        pickle.dumps([1, 2]),
        pickle.dumps({"a": Path("a")}),
        b"\x80\x02" + b"(" * 50,
    ],
)
def test_pickles_that_are_none(tmp_path, content):
    """`torch.load(weights_only=True)` raises nearly anything over these."""
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(InputError, match="x.bin: not a file of plain tensors, and nothing in it was run: ."):
        read_tensors(tmp_path / "x.bin")


@pytest.mark.parametrize("ends", ["the name", "the pickle", None])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_an_endless_name(tmp_path, zipped, ends):
    """torch searches its own message, which quotes the name three times, in the square of its length: it would take a
    quarter of an hour over this one.
    """
    path, name = tmp_path / "x.bin", b"x" * 300_000

    def spoilt(content: bytes) -> bytes:
        if ends == "the name":  # what follows is the pickle's own
            return content.replace(b"FloatStorage", name)
        return content.partition(b"FloatStorage")[0] + name + (b"\n\xff" if ends else b"")

    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for record, content in records.items():
                archive.writestr(record, spoilt(content))
    else:
        path.write_bytes(spoilt(path.read_bytes()))
    asked = "of 300,006 characters" if ends else "that does not end"
    with pytest.raises(InputError, match=f"x.bin: .*nothing in it was run: it asks for a name {asked}"):
        read_tensors(path)


def test_a_record_that_is_shorter_than_its_tensor(tmp_path):
    """Memory-mapped, torch read on behind the record, and gave what lies there as numbers."""
    path = tmp_path / "x.pt"
    shared = torch.ones(6)
    torch.save({"a": torch.ones(60), "b": torch.ones(10), "c": shared[:4], "d": shared[2:], "e": torch.ones(0)}, path)
    assert read_tensors(path)["d"].tolist() == [1.0] * 4
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for record, content in records.items():
            archive.writestr(record, content[:73] if record.endswith("data/0") else content)
    with pytest.raises(InputError, match="x.pt: broken: no record of it has the 240 bytes of a tensor; fetch it again"):
        read_tensors(path)


def test_a_tensor_that_asks_for_more_than_its_file_holds(tmp_path):
    """With strides of 0 any size is made of one number, and the next copy would take that much memory."""
    torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "x.pt")
    assert (tmp_path / "x.pt").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"x.pt: tensor 'a': shape \(1000000000000,\) is more than the file holds"):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")
@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.eye(2).to_sparse()}, "tensor 'a' is no plain one"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "tensor 'a': found torch.complex64, expected real numbers"),
        ({"a": torch.ones(2, device="meta")}, "tensor 'a' is no plain one"),
        ({3: torch.ones(2)}, "expected names of tensors, found int"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(InputError, match=f"x.pt: {message}"):
        read_tensors(tmp_path / "x.pt")


def test_whole_numbers_are_no_weights():
    layer = torch.nn.Linear(2, 2)
    quantised = {name: tensor.to(torch.int8) for name, tensor in layer.state_dict().items()}
    with pytest.raises(InputError, match="here: tensor 'weight': found int8, expected floats"):
        load_tensors(layer, quantised, "here")


def test_an_archive_that_was_packed_again(tmp_path):
    """Its compressed records, memory-mapped, would be taken for numbers."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as old, zipfile.ZipFile(tmp_path / "y.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"y.pt: its record .* is compressed, as torch writes none"):
        read_tensors(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map from tensors to files in it"),
        ({"weight_map": ["a"]}, "no weight_map"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": {"a": 3}}, "no weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, r"names the file '../model.safetensors'; expected one beside"),
        ({"weight_map": {"a": "/dev/zero"}}, "names the file '/dev/zero'; expected one beside it"),
        ({"weight_map": {"a": "x\0"}}, "names the file .*; expected one beside it"),
        ({"weight_map": {"a": "x" * 5000}}, "names files that cannot be: .*File name too long"),
        ({"weight_map": {"a": "b.safetensors"}}, "names b.safetensors, which is not there"),
    ],
)
def test_an_index_that_names_no_shards(tmp_path, index, message):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        weight_files(tmp_path)


def test_two_shards_that_do_not_agree(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_file({"x": torch.full((2,), value)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="b.safetensors: tensor 'x' is in another shard too, and differs"):
        read_tensors(tmp_path)


def test_json_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="x.json: cannot be read as JSON: it is nested too deeply"):
        read_json(tmp_path / "x.json")
