"""A rank that dies, and a disk that fills up: how the run ends, and whether it can be gone on with.

    python -m experiments.reliability.faults rank
    mount -t tmpfs -o size=32m none SMALL; python -m experiments.reliability.faults disk --small SMALL

`rank`: one of two processes is killed once the first checkpoint is whole; the launcher has to end by itself, with
another status than 0. `disk`: a run writes to a small file system on which another file has left too little room; it
has to end with one line and status 2. Then both are resumed, and their losses held against those of a run left alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from experiments.reliability.kill import command, losses, start
from limber_interp.training.checkpoints import Checkpoints


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=("rank", "disk"))
    parser.add_argument("--config", default="emoji_clip_linear")
    parser.add_argument("--data", type=Path, default=Path("limber_weights/emoji/scenes"))
    parser.add_argument("--build", type=Path, default=Path("build/reliability"))
    parser.add_argument("--small", type=Path, help="an empty folder on a file system of its own, some 32 MB large")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--port", type=int, default=29_750)
    args = parser.parse_args(arguments)
    args.ranks = 2 if args.fault == "rank" else 1
    args.encodings = args.build / "encodings"
    if (args.small is None) == (args.fault == "disk"):
        parser.error("disk needs --small, rank does not")

    alone = args.build / f"{args.fault}_alone"
    out = args.build / "rank" if args.small is None else args.small / "out"
    for folder in (alone, out):
        shutil.rmtree(folder, ignore_errors=True)
    done = start(command(args, alone))
    _, said = done.communicate()
    assert done.returncode == 0, said

    found = die(args, out) if args.fault == "rank" else fill(args, out)
    checkpoints = Checkpoints(out / f"{args.config}.checkpoints")
    found["whole"] = [checkpoint.step for checkpoint in checkpoints.whole()]
    found["half"] = sorted(path.name for path in checkpoints.folder.glob(".*"))
    assert found["status"] != 0
    done = start([*command(args, out), "--resume"])
    _, said = done.communicate()
    assert done.returncode == 0, said
    found["losses equal those of a run left alone"] = losses(out, args.config) == losses(alone, args.config)
    print(json.dumps({"fault": args.fault, "steps": args.steps, **found}))
    assert found["losses equal those of a run left alone"]


def die(args: argparse.Namespace, out: Path) -> dict:
    """Kill one of two ranks; how long the launcher then takes, and how it ends."""
    process = start(command(args, out))
    checkpoints = Checkpoints(out / f"{args.config}.checkpoints")
    while process.poll() is None and not checkpoints.whole():
        time.sleep(0.05)
    ranks = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "limber" in str(child.cmdline())
    ]
    assert len(ranks) == 2, ranks
    ranks[1].kill()
    began = time.monotonic()
    _, said = process.communicate()
    seconds = round(time.monotonic() - began, 1)
    lines = [line for line in said.splitlines() if line.startswith("train: ")]
    return {"status": process.returncode, "seconds until the launcher ended": seconds, "said": lines}


def fill(args: argparse.Namespace, out: Path) -> dict:
    """Run beside a file that leaves room for one checkpoint and a half; the file is gone afterwards."""
    probe = start([*command(args, args.build / "probe"), "--train-steps", str(args.save_every + 1)])
    _, said = probe.communicate()
    assert probe.returncode == 0, said
    (checkpoint,) = Checkpoints(args.build / "probe" / f"{args.config}.checkpoints").whole()
    size = sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())
    shutil.rmtree(args.build / "probe")
    filler = args.small / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(args.small).free - size * 3 // 2))
    try:
        done = subprocess.run(command(args, out), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    finally:
        filler.unlink()
    return {"status": done.returncode, "said": done.stderr.splitlines()[-1].replace(str(args.small), "SMALL")}


if __name__ == "__main__":
    sys.exit(main())
