"""Makes the whole embedded suite again, stage by stage. A stage whose report is there is not run again.

    python -m experiments.emoji_world.suite             # everything, about two hours on two cores
    python -m experiments.emoji_world.suite --ablation  # what is measured beside it: the same without word maps
    python -m experiments.emoji_world.suite --only lm   # one stage; --list names them
    python -m experiments.emoji_world.suite --table     # the reports as tables, into this folder's README.md

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
REMADE = HERE / "remade"  # the reports of one run of everything, on an idle machine
WORK = Path("build/emoji_world")
SUITE = Path("limber_weights/emoji")
CONFIGS = (
    "emoji_clip_linear",
    "emoji_nfrn_linear",
    "emoji_beit_linear",
    "emoji_beit_ft_linear",
    "emoji_nfrn_random_linear",
    "emoji_beit_random_linear",
)
DEFAULT = CONFIGS[0]
BUNDLED = 18594  # a seed whose first scene shows well: it illustrates, and is in no number
SEEDS = (1, 2)  # besides the config's own, for the spread of the default one


def module(name: str, **options: object) -> list[str]:
    """`python -m NAME --option value …`; True stands for an option without a value, None for none at all."""
    command = [sys.executable, "-m", name]
    for option, value in options.items():
        if value is not None:
            command += [f"--{option.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return command


def world(name: str, **options: object) -> list[str]:
    return module(f"experiments.emoji_world.{name}", **options)


def train(config: str, out: Path, **options: object) -> list[str]:
    return module("limber_interp.train", config=config, out=out, encodings=WORK / "encodings", json="-", **options)


def evaluate(config: str, scenes: str = "eval", **options: object) -> list[str]:
    return world("evaluate", config=config, scenes=WORK / "scenes" / scenes, encodings=WORK / "encodings", **options)


def stages() -> dict[str, list[str]]:
    """Name → command, in the order in which they can run."""
    encoders, trained, drawn = SUITE / "encoders", WORK / "projections", WORK / "scenes"
    found = {
        "scenes_train": world("scenes", seed=1, count=32_000, pairs="training", out=drawn / "train"),
        "scenes_eval": world("scenes", seed=2, count=500, pairs="any", out=drawn / "eval"),
        "scenes_held_out": world("scenes", seed=3, count=500, pairs="held-out", out=drawn / "held_out"),
        "scenes_bundled": world("scenes", seed=BUNDLED, count=24, pairs="any", out=SUITE / "scenes"),
        "scenes_few": world("scenes", seed=5, count=1000, pairs="training", out=drawn / "few"),
        "pack": world("pack", scenes=drawn / "few", out=SUITE / "training", quality=85),
        "taxonomy": world("taxonomy", out=SUITE / "taxonomy.json"),
        "lm": world("language_model", out=SUITE / "lm"),
        "clip": world("clip", out=encoders / "clip"),
        "nfresnet": world("supervised", encoder="nfresnet", out=encoders / "nfresnet"),
        "beit": world("beit", out=encoders / "beit"),
        "beit_ft": world("supervised", encoder="beit_ft", init=encoders / "beit", out=encoders / "beit_ft"),
    }
    for config in CONFIGS[-2:]:
        found[f"probe_{config}"] = world("probe", config=config)
    for config in CONFIGS:
        found[f"train_{config}"] = train(config, trained)
    for seed in SEEDS:
        found[f"train_{DEFAULT}_seed{seed}"] = train(DEFAULT, trained / f"seed{seed}", seed=seed)
    found["publish"] = world("publish") + [str(trained / f"{config}.safetensors") for config in CONFIGS]
    for config in CONFIGS:
        found[f"eval_{config}"] = evaluate(config)
    found[f"eval_{DEFAULT}_held_out_pairs"] = evaluate(DEFAULT, "held_out")
    for seed in SEEDS:
        projection = trained / f"seed{seed}" / f"{DEFAULT}.safetensors"
        found[f"eval_{DEFAULT}_seed{seed}"] = evaluate(DEFAULT, projection=projection)
    return found


def ablation() -> dict[str, list[str]]:
    """The default projection for a language model that never read a word map. Nothing of it is shipped."""
    lm = WORK / "lm_without_word_maps"
    projection = WORK / "projections" / "without_word_maps" / f"{DEFAULT}.safetensors"
    return {
        "lm_without_word_maps": world("language_model", out=lm, no_word_maps=True),
        "train_without_word_maps": train(DEFAULT, projection.parent, lm=lm),
        "eval_without_word_maps": evaluate(DEFAULT, lm=lm, projection=projection),
    }


def run(name: str, command: list[str]) -> None:
    """Runs a stage; its report is what it prints (JSON), with its time. Only what ended well counts as done."""
    if name.startswith("scenes_"):
        shutil.rmtree(command[-1], ignore_errors=True)  # a half-drawn folder of an interrupted run
    if name.startswith("train_"):  # a run of this stage once more: the command itself replaces no projection
        out, config = (command[command.index(option) + 1] for option in ("--out", "--config"))
        (Path(out) / f"{config}.safetensors").unlink(missing_ok=True)
    print(f"── {name}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: failed with status {done.returncode}; mend it and run the suite again")
    report = {"stage_minutes": round((time.monotonic() - began) / 60, 1)}
    _, brace, rest = done.stdout.partition("{")  # libraries may have their say before it
    if brace:
        report |= json.loads(brace + rest)
    REPORTS.mkdir(exist_ok=True)
    temporary = REPORTS / f".{name}.json"
    temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    os.replace(temporary, REPORTS / f"{name}.json")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--only", nargs="+", metavar="STAGE", help="run these stages alone")
    one.add_argument("--ablation", action="store_true", help="run the stages of the ablation without word maps")
    one.add_argument("--list", action="store_true", help="name the stages and say which are done")
    one.add_argument("--table", action="store_true", help="write the tables into README.md from the reports")
    args = parser.parse_args(arguments)
    known = stages() | ablation()
    if unknown := sorted(set(args.only or ()) - known.keys()):
        parser.error(f"--only: no stage {', '.join(unknown)}; --list names them")
    if args.list:
        for name in known:
            print("done" if (REPORTS / f"{name}.json").exists() else "open", name)
        return
    if not args.table:
        for name in args.only or (ablation() if args.ablation else stages()):
            if args.only or not (REPORTS / f"{name}.json").exists():
                run(name, known[name])
    from experiments.emoji_world.report import write_tables

    write_tables(REPORTS, REMADE, HERE / "README.md", HERE.parents[1] / "README.md")


if __name__ == "__main__":
    main()
