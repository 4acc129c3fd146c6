"""Processes that wait for each other: for as long as one of them works, and no longer than they were told."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

# The first process works alone while the second waits. Where a script has made the group before, its patience is one
# second, in the place of the ten or thirty minutes that are usual.
PROGRAM = """
import sys, time
from datetime import timedelta
from pathlib import Path
import torch
from torch import distributed

gave_up, script, patience = Path(sys.argv[1]), sys.argv[2] == "script", sys.argv[3]
short = timedelta(seconds=1)
if script:
    distributed.init_process_group("gloo", timeout=timedelta(minutes=10))
    distributed.barrier()
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    set_timeout(short)

from limber_interp.ranks import Ranks
from limber_interp.training.ranks import meet

meet(torch.device("cpu"), *([short] if patience == "short" else []))
ranks = Ranks.of_environment()
try:
    with ranks.first_alone():
        if ranks.first and patience == "short":
            until = time.monotonic() + 300
            while not gave_up.exists() and time.monotonic() < until:
                time.sleep(0.05)
        elif ranks.first:
            time.sleep(2)
except RuntimeError as error:
    if not ranks.first:
        gave_up.write_text(str(error))
    print(error, file=sys.stderr)
    raise SystemExit(3)
"""


def two_processes(*arguments: str, **environment: str) -> list[tuple[int, str]]:
    """Exit status and standard error of each of a group of two that run the program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **group, **environment}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**here, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate()[1] for process in started]
    return [(process.returncode, words) for process, words in zip(started, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["meet", "script"])
def test_a_process_may_work_alone_for_longer_than_the_usual_patience(tmp_path: Path, maker: str) -> None:
    """Encoding a data set, or captioning held-out images, ended the run after ten minutes: the others gave up."""
    # The patience that DeepSpeed gives a group of its own where it is not told another, in minutes: none
    found = two_processes(str(tmp_path / "gave_up"), maker, "usual", DEEPSPEED_TIMEOUT="0")
    assert [status for status, _ in found] == [0, 0], found


@pytest.mark.slow
def test_a_short_patience_ends_the_waiting(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    found = two_processes(str(tmp_path / "gave_up"), "script", "short")
    assert found[1][0] == 3, found
    assert "imed out" in (tmp_path / "gave_up").read_text()
