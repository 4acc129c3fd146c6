"""The measurement of a GPU, rehearsed on a CPU: when a card is at hand for minutes, nothing may be left to mend."""

import json
from collections.abc import Iterator

import pytest
import torch

from experiments.benchmarks.gpu.__main__ import STAGES, Options, main
from experiments.benchmarks.tables import Table, heading


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On cores that others use too, two threads wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_every_stage_on_a_cpu(tmp_path, monkeypatch, capsys):
    """Every line of every stage runs, at small sizes; what the CPU is held to here, itself, holds."""
    monkeypatch.chdir(tmp_path)  # where the random GPT-J goes, and is gone afterwards
    assert main(Options(tiny=True, device="cpu", out=tmp_path / "out")) == 0, capsys.readouterr().out
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    assert found.keys() == STAGES.keys()
    for name, stage in found.items():
        assert stage["error"] is None
        assert stage["tables"], name
        for table in stage["tables"]:
            assert table["rows"]
            assert all(len(row) == len(table["columns"]) for row in table["rows"]), name
        assert {"processor", "caches", "blas", "load", "versions"} <= stage["machine"].keys()
    (right,) = found["right"]["tables"]
    assert [row[-1] for row in right["rows"]] == ["yes"] * len(right["rows"])


def test_a_stage_that_fails_is_reported_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def failing(device, sizes):
        yield Table("half of it", ("what",), (("one",),))
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(STAGES, "lens", failing)
    assert main(Options(stages=("lens", "rates"), tiny=True, device="cpu", out=tmp_path)) == 1
    lens, rates = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("lens", "rates"))
    assert "no kernel image is available" in lens["error"]
    assert lens["tables"][0]["title"] == "half of it"  # what was known before is kept
    assert rates["error"] is None
    assert "failed: lens" in capsys.readouterr().err


def test_a_check_that_does_not_hold_is_a_failure(tmp_path, monkeypatch):
    table = Table("checks", ("what", "found", "bound", "holds"), (("logits", 2.0, 1.0, "NO"),))
    monkeypatch.setitem(STAGES, "right", lambda device, sizes: [table])
    assert main(Options(stages=("right",), tiny=True, device="cpu", out=tmp_path)) == 1


def test_no_stage_begins_after_its_time(tmp_path, capsys):
    assert main(Options(stages=("rates",), tiny=True, device="cpu", out=tmp_path, minutes=-1.0)) == 0
    assert "rates: left out" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_table_reads_as_markdown():
    table = Table("Two ways", ("way", "s"), (("ours", 0.01234), ("theirs", 1234.5)), ("A note.",))
    assert table.markdown() == (
        "Two ways\n\n| way | s |\n| --- | ---: |\n| ours | 0.0123 |\n| theirs | 1,234 |\n\nA note.\n"
    )
    assert heading().startswith("processor: ")
