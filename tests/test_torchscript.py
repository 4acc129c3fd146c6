import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from limber_interp.errors import InputError
from limber_interp.torchscript import is_torchscript, read_torchscript
from limber_interp.weights import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated:FutureWarning")


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, bias=False).half()
        self.body = nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("strided", torch.arange(12.0).view(3, 4).T)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.body(self.conv(pixels.half()).float()) * self.scale


def archive(path: Path, how: str = "script") -> dict[str, torch.Tensor]:
    """Write one, and say what is in it."""
    tower = Tower().eval()
    program = torch.jit.script(tower) if how == "script" else torch.jit.trace(tower, torch.ones(1, 3, 4, 4))
    torch.jit.save(program, path)
    return tower.state_dict()


@pytest.mark.parametrize("how", ["script", "trace"])
def test_the_tensors_are_those_that_torch_would_load(tmp_path, how):
    state = archive(tmp_path / "tower.pt", how)
    assert torch.jit.load(tmp_path / "tower.pt").state_dict().keys() == state.keys()
    shutil.move(tmp_path / "tower.pt", tmp_path / "another_name.pt")
    found = read_tensors(tmp_path / "another_name.pt")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_the_file_stays_as_it_is(tmp_path):
    """The views are private: writing to one changes neither the file nor what the next one reads."""
    state = archive(tmp_path / "tower.pt")
    before = (tmp_path / "tower.pt").read_bytes()
    read_torchscript(tmp_path / "tower.pt")["scale"].zero_()
    assert (tmp_path / "tower.pt").read_bytes() == before
    assert torch.equal(read_torchscript(tmp_path / "tower.pt")["scale"], state["scale"])


def test_other_files_are_none(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert not any(is_torchscript(path) for path in tmp_path.iterdir())


class Writes(nn.Module):
    """A module whose code runs when `torch.jit.load` opens it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self) -> torch.Tensor:
        return self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor]:
        return self.path, self.weight

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor]) -> None:
        self.training, (self.path, self.weight) = False, state
        torch.save(self.weight, self.path)


def test_its_program_does_not_run(tmp_path):
    torch.jit.save(torch.jit.script(Writes(str(tmp_path / "code ran"))), tmp_path / "writes.pt")
    with pytest.raises(InputError, match="nothing in it was run"):
        read_tensors(tmp_path / "writes.pt")
    assert not (tmp_path / "code ran").exists()
    torch.jit.load(tmp_path / "writes.pt")  # the reason why it is not used
    assert (tmp_path / "code ran").exists()


def rewritten(source: Path, target: Path, record: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive with one record replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(record) else old.read(name))
    return target


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    archive(tmp_path / "tower.pt")
    bad = rewritten(
        tmp_path / "tower.pt", tmp_path / "bad.pt", "/data.pkl", pickle.dumps(Payload(tmp_path / "code ran"), 2)
    )
    with pytest.raises(InputError, match=r"bad.pt: not an archive .* nothing in it was run: it asks for "):
        read_tensors(bad)
    assert not (tmp_path / "code ran").exists()


def broken_archives(tmp_path: Path) -> dict[str, Path]:
    archive(tmp_path / "tower.pt")
    good = tmp_path / "tower.pt"
    with zipfile.ZipFile(good) as stored:
        described = stored.read("tower/data.pkl")
    return {
        "expected a TorchScript module": rewritten(good, tmp_path / "a.pt", "/data.pkl", pickle.dumps([], 2)),
        "broken TorchScript archive": rewritten(good, tmp_path / "b.pt", "/data.pkl", described[:-40]),
        "out of bounds": rewritten(good, tmp_path / "c.pt", "/data/2", b"\0" * 8),
        # a place to remember something at: one byte, and here four, for which Python would take gigabytes
        "remembers something at place 4,000,000,000": rewritten(
            good,
            tmp_path / "e.pt",
            "/data.pkl",
            described.replace(b"q\x00", b"r" + struct.pack("<I", 4_000_000_000), 1),
        ),
        "is compressed": rewritten(good, tmp_path / "d.pt", "none", b"", zipfile.ZIP_DEFLATED),
    }


def test_broken_archives(tmp_path):
    for message, path in broken_archives(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            read_tensors(path)
        assert str(path) in str(caught.value)


def test_a_truncated_archive(tmp_path):
    archive(tmp_path / "tower.pt")
    (tmp_path / "tower.pt").write_bytes((tmp_path / "tower.pt").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"tower.pt: not a file of plain tensors, and nothing in it was run"):
        read_tensors(tmp_path / "tower.pt")
