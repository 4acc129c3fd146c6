"""Which encoders carry what? All of the embedded suite's on unseen scenes, with every task.

    python -m experiments.encoder_comparison.run

Draws the scenes, runs `limber_interp.compare_encoders` on them, and puts beside this file summary.json (every estimate
and difference, no single captions) and figure.png. The record and the page with all captions lie in
build/encoder_comparison. An interrupted run goes on where it stopped.
"""

import argparse
import json
from pathlib import Path

import torch

from experiments.emoji_world.scenes import write
from limber_interp import compare_encoders
from limber_interp.records import Comparison, write_atomically

HERE = Path(__file__).parent
BUILD = Path("build/encoder_comparison")
SINGLE = ("images", "questions", "per_image")  # of the record: what every entry said of every image


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    scenes = BUILD / f"scenes_{args.scenes}"
    if not scenes.exists():
        write(scenes, seed=6, count=args.scenes, held_out=None)  # no seed of any other scenes here
    out = BUILD / f"out_{args.scenes}"
    command = ["--data", scenes, "--out", out, "--figure", HERE / "figure.png", "--html", BUILD / "page.html"]
    if status := compare_encoders.main(list(map(str, command))):
        return status
    record = Comparison.load(out / "comparison.npz").as_dict()
    summary = json.dumps({key: value for key, value in record.items() if key not in SINGLE}, indent=1)
    write_atomically(HERE / "summary.json", lambda path: path.write_text(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
