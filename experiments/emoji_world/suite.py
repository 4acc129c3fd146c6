"""Makes the whole embedded suite again, stage by stage. A stage whose report is there is not run again.

    python -m experiments.emoji_world.suite            # everything, about two hours on two cores
    python -m experiments.emoji_world.suite --only lm  # one stage; --list names them
    python -m experiments.emoji_world.suite --table    # the reports as tables, into this folder's README.md

Reports lie in `experiments/emoji_world/reports/<stage>.json`; what is large and can be made again, in `build/`.
Remove a stage's report to run it once more.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
REPORTS = HERE / "reports"
WORK = Path("build/emoji_world")
SUITE = Path("limber_weights/emoji")
PYTHON = [sys.executable, "-m"]
CONFIGS = (
    "emoji_clip_linear", "emoji_nfrn_linear", "emoji_beit_linear", "emoji_beit_ft_linear",
    "emoji_nfrn_random_linear", "emoji_beit_random_linear",
)  # fmt: skip
SEEDS = (1, 2)  # besides the config's own, for the spread of the default one


def scenes(name: str, seed: int, count: int, pairs: str) -> list[str]:
    out = str(WORK / "scenes" / name)
    return [*PYTHON, "experiments.emoji_world.scenes", "--seed", str(seed), "--count", str(count), "--pairs", pairs, "--out", out]  # fmt: skip


def train(config: str, out: Path, *options: str) -> list[str]:
    return [*PYTHON, "limber_interp.train", "--config", config, "--out", str(out), "--encodings", str(WORK / "encodings"), "--json", "-", *options]  # fmt: skip


def evaluate(config: str, scenes_name: str, *options: str) -> list[str]:
    return [*PYTHON, "experiments.emoji_world.evaluate", "--config", config, "--scenes", str(WORK / "scenes" / scenes_name), *options]  # fmt: skip


def stages() -> dict[str, list[str]]:
    """Name → command, in the order in which they can run."""
    encoders, trained = SUITE / "encoders", WORK / "projections"
    module = [*PYTHON, "experiments.emoji_world.supervised", "--encoder"]
    ablation = str(WORK / "lm_without_word_maps")
    found = {
        "scenes_train": scenes("train", 1, 32_000, "training"),
        "scenes_eval": scenes("eval", 2, 500, "any"),
        "scenes_held_out": scenes("held_out", 3, 500, "held-out"),
        "lm": [*PYTHON, "experiments.emoji_world.language_model", "--out", str(SUITE / "lm")],
        "clip": [*PYTHON, "experiments.emoji_world.clip", "--out", str(encoders / "clip")],
        "nfresnet": [*module, "nfresnet", "--out", str(encoders / "nfresnet")],
        "beit": [*PYTHON, "experiments.emoji_world.beit", "--out", str(encoders / "beit")],
        "beit_ft": [*module, "beit_ft", "--init", str(encoders / "beit"), "--out", str(encoders / "beit_ft")],
    }
    for config in ("emoji_nfrn_random_linear", "emoji_beit_random_linear"):
        found[f"probe_{config}"] = [*PYTHON, "experiments.emoji_world.probe", "--config", config]
    for config in CONFIGS:
        found[f"train_{config}"] = train(config, trained)
    for seed in SEEDS:
        found[f"train_emoji_clip_linear_seed{seed}"] = train("emoji_clip_linear", trained / f"seed{seed}", "--seed", str(seed))  # fmt: skip
    found["publish"] = ["cp", *(str(trained / f"{c}.safetensors") for c in CONFIGS), str(SUITE / "projections")]
    for config in CONFIGS:
        found[f"eval_{config}"] = evaluate(config, "eval")
    found["eval_emoji_clip_linear_held_out_pairs"] = evaluate("emoji_clip_linear", "held_out")
    for seed in SEEDS:
        projection = str(trained / f"seed{seed}" / "emoji_clip_linear.safetensors")
        found[f"eval_emoji_clip_linear_seed{seed}"] = evaluate("emoji_clip_linear", "eval", "--projection", projection)
    found["lm_without_word_maps"] = [*PYTHON, "experiments.emoji_world.language_model", "--out", ablation, "--no-word-maps"]  # fmt: skip
    found["train_without_word_maps"] = train("emoji_clip_linear", trained / "without_word_maps", "--lm", ablation)
    projection = str(trained / "without_word_maps" / "emoji_clip_linear.safetensors")
    found["eval_without_word_maps"] = evaluate("emoji_clip_linear", "eval", "--lm", ablation, "--projection", projection)  # fmt: skip
    return found


def run(name: str, command: list[str]) -> None:
    """Runs a stage; its report is what it prints (JSON), with its time. Nothing counts as done that did not end well."""
    if name.startswith("scenes_"):
        shutil.rmtree(command[-1], ignore_errors=True)  # a half-drawn folder of an interrupted run
    if name == "publish":
        (SUITE / "projections").mkdir(parents=True, exist_ok=True)
    print(f"── {name}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: failed with status {done.returncode}; mend it and run the suite again to go on from here")
    report = {"stage_minutes": round((time.monotonic() - began) / 60, 1)}
    if done.stdout.strip():
        report |= json.loads(done.stdout)
    REPORTS.mkdir(exist_ok=True)
    temporary = REPORTS / f".{name}.json"
    temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, REPORTS / f"{name}.json")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="run these stages alone")
    parser.add_argument("--list", action="store_true", help="name the stages and say which are done")
    parser.add_argument("--table", action="store_true", help="write the tables into README.md from the reports")
    args = parser.parse_args(arguments)
    known = stages()
    if unknown := sorted(set(args.only or ()) - known.keys()):
        parser.error(f"--only: no stage {', '.join(unknown)}; --list names them")
    if args.list:
        for name in known:
            print("done" if (REPORTS / f"{name}.json").exists() else "open", name)
        return
    if not args.table:
        for name in args.only or known:
            if args.only or not (REPORTS / f"{name}.json").exists():
                run(name, known[name])
    from experiments.emoji_world.report import write_tables

    write_tables(REPORTS, HERE / "README.md")


if __name__ == "__main__":
    main()
