"""Kills a training run at random moments and resumes it, until it ends; then holds its losses against a run left alone.

    python -m experiments.reliability.kill --kills 20 --ranks 1

Each round starts the run with --resume, waits for a random time after its first step, and sends SIGKILL to all of its
processes. What is asserted: no round but a killed one fails, the last ends by itself, and the losses of all steps equal
those of the run that was left alone. Each round writes a JSON line: steps in the log, checkpoints that are whole.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil

from limber_interp.training.checkpoints import Checkpoints


def command(args: argparse.Namespace, out: Path) -> list[str]:
    launcher = [sys.executable, "-m"]
    if args.ranks > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(args.ranks)]
        launcher += ["--master-port", str(args.port), "-m"]
    options = {"config": args.config, "data": args.data, "held-out": args.data, "out": out, "encodings": args.encodings}
    options |= {"train-steps": args.steps, "save-every": args.save_every, "batch-size": args.batch_size}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [*launcher, "limber_interp.train", *given]


def start(words: list[str]) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **quiet)


def losses(out: Path, config: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / f"{config}.jsonl").read_text().splitlines()]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="emoji_clip_linear")
    parser.add_argument("--data", type=Path, default=Path("limber_weights/emoji/scenes"))
    parser.add_argument("--out", type=Path, default=Path("build/reliability"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--longest", type=float, default=6.0, help="seconds of training after which a run is killed at most"
    )
    parser.add_argument("--port", type=int, default=29_700)
    args = parser.parse_args(arguments)
    args.encodings = args.out / "encodings"
    rng = random.Random(args.seed)

    alone = args.out / "alone"
    done = start(command(args, alone))
    _, said = done.communicate()
    assert done.returncode == 0, said

    out, checkpoints = args.out / "killed", Checkpoints(args.out / "killed" / f"{args.config}.checkpoints")
    for kill in range(args.kills):
        process = start([*command(args, out), "--resume"])
        log = out / f"{args.config}.jsonl"
        before = log.stat().st_mtime_ns if log.exists() else 0
        while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns > before):
            time.sleep(0.05)  # importing and loading are not what is tried here
        time.sleep(rng.uniform(0, args.longest))
        ended = process.poll()
        if ended is None:
            of_launcher = psutil.Process(process.pid)
            for one in (of_launcher, *of_launcher.children(recursive=True)):  # a launcher's ranks are in other groups
                one.kill()
        _, said = process.communicate()
        assert ended in (None, 0), said
        whole = [checkpoint.step for checkpoint in checkpoints.whole()]
        left = sorted(path.name for path in checkpoints.folder.glob(".*")) if checkpoints.folder.exists() else []
        print(
            json.dumps({"kill": kill, "steps": len(losses(out, args.config)), "whole": whole, "half": left}), flush=True
        )
        if (out / f"{args.config}.safetensors").exists():  # it had ended, or was killed behind its end
            break
    else:
        process = start([*command(args, out), "--resume"])
        _, said = process.communicate()
        assert process.returncode == 0, said
    equal = losses(out, args.config) == losses(alone, args.config)
    print(json.dumps({"ranks": args.ranks, "steps": args.steps, "losses equal those of a run left alone": equal}))
    assert equal


if __name__ == "__main__":
    main()
