"""Is training needed? Projections in closed form beside trained ones, on the same scenes.

    python -m experiments.closed_form.run --config emoji_clip_linear

Draws its own scenes, finds each projection with `training.engine`, measures it with the emoji world's `evaluate`, puts
the numbers into <config>.json beside this file, and prints the table of its README. Rows that are there are kept.
"""

import argparse
import json
from pathlib import Path

import torch

import limber_interp
from experiments.emoji_world.evaluate import measure
from experiments.emoji_world.scenes import write
from limber_interp.config import load_config
from limber_interp.records import write_atomically
from limber_interp.training.engine import train

HERE = Path(__file__).parent
BUILD = Path("build/closed_form")
SCENES = {"train": (1011, 8000), "eval": (1012, 500)}  # seed, count: none of the suite's own
# name -> what `train` is told; `init` names another row
RUNS: dict[str, dict] = {
    "least-squares": {"method": "least-squares"},
    "ridge": {"method": "ridge"},
    "procrustes": {"method": "procrustes"},
    "gradient": {},
    "gradient from ridge": {"init": "ridge"},
}
COLUMNS = ("nouns", "nouns, wrong image", "background", "sizes", "relation")


def found(config_name: str, name: str, steps: int) -> tuple[str, float]:
    """The projection's file, and the minutes it took."""
    settings = dict(RUNS[name])
    if "init" in settings:
        settings["init"] = BUILD / config_name / settings["init"] / f"{config_name}.safetensors"
    config = load_config(config_name, projection="none", train_steps=steps, lr_decay_iters=steps)
    run = train(config, BUILD / "scenes/train", BUILD / config_name / name.replace(" ", "-"),
                encodings_folder=BUILD / "encodings", **settings)  # fmt: skip
    return run.projection, run.minutes


def table(rows: dict) -> str:
    lines = [f"|  | {' | '.join(COLUMNS)} | loss right | wrong | hit@5 | minutes |"]
    lines += ["| --- |" + " ---: |" * (len(COLUMNS) + 4)]
    for name, row in rows.items():
        values = [row[column] for column in COLUMNS] + [row["loss"]["right"], row["loss"]["wrong"]]
        values += [row["hit@5 of the nearest tokens"]["right image"]]
        minutes = "–" if row["minutes"] is None else f"{row['minutes']:.1f}"
        lines += [f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {minutes} |"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="emoji_clip_linear")
    parser.add_argument("--rows", nargs="*", choices=RUNS, default=list(RUNS))
    parser.add_argument("--steps", type=int, default=150, help="of the gradient rows")
    args = parser.parse_args(arguments)
    for name, (seed, count) in SCENES.items():
        if not (BUILD / "scenes" / name).exists():
            write(BUILD / "scenes" / name, seed, count)
    path = HERE / f"{args.config}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    shipped = "trained, as shipped (2,000 steps, 32,000 scenes)"
    for name in (shipped, *args.rows):
        label = f"{name}, {args.steps} steps" if name.startswith("gradient") else name
        if label in rows:
            continue
        projection, minutes = (None, None) if name == shipped else found(args.config, name, args.steps)
        model = limber_interp.load(args.config, projection=projection, device="cpu", dtype="float32")
        rows[label] = {"minutes": minutes, **measure(model, BUILD / "scenes/eval", BUILD / "encodings")}
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    print(table(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
