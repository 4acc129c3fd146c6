"""Does it matter in which form the data comes? The embedded projections, trained again from shards, folder and tar.

    python -m experiments.retraining.run                       # all six from shards; the default one from all three

The scenes are those that the suite draws (`python -m experiments.emoji_world.suite --only scenes_train scenes_eval`).
`shards` are what `limber_interp.encode` writes, `folder` is LIMBER's format, `tar` holds the same pictures as
img2dataset would. Rows go into results.json beside this file, and those that are there are kept.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

import limber_interp
from experiments.emoji_world.evaluate import measure
from experiments.emoji_world.pack import pack
from experiments.emoji_world.suite import CONFIGS, DEFAULT, REPORTS, WORK
from limber_interp.config import load_config
from limber_interp.datasets import open_dataset
from limber_interp.encodings import encode_once
from limber_interp.models.encoders import load_encoder
from limber_interp.records import write_atomically
from limber_interp.training.engine import train

HERE = Path(__file__).parent
BUILD = Path("build/retraining")
SCENES = WORK / "scenes"


def source(name: str, config: str) -> Path:
    """The training scenes in a form, made where it is not there yet."""
    if name == "folder":
        return SCENES / "train"
    if name == "tar":
        if not (folder := BUILD / "tar").exists():
            pack(SCENES / "train", folder)
        return folder
    scenes = open_dataset(SCENES / "train")
    return encode_once(load_encoder(load_config(config)), scenes, BUILD / "encodings").folder


def table(rows: dict[str, dict]) -> str:
    lines = ["| config | from | examples | nouns named | shipped | loss, right image | minutes |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for label, row in rows.items():
        config, form = label.split(" ")
        shipped = json.loads((REPORTS / f"eval_{config}.json").read_text())["nouns"]
        numbers = f"{row['nouns']:.3f} | {shipped:.3f} | {row['loss']['right']:.3f} | {row['minutes']:.1f}"
        lines += [f"| `{config}` | {form} | {row['examples']} | {numbers} |"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args(arguments).threads)
    path = HERE / "results.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for config, form in [*((DEFAULT, form) for form in ("shards", "folder", "tar")), *((c, "shards") for c in CONFIGS)]:
        if f"{config} {form}" in rows:
            continue
        out = BUILD / config / form
        run = train(
            load_config(config, projection="none"), source(form, config), out, encodings_folder=BUILD / "encodings",
            progress=lambda items, description, label=f"{config} {form}": tqdm(items, desc=f"{label}: {description}"),
        )  # fmt: skip
        model = limber_interp.load(config, projection=run.projection, device="cpu", dtype="float32")
        measured = measure(model, SCENES / "eval", BUILD / "encodings")
        rows[f"{config} {form}"] = {"examples": run.examples, "minutes": run.minutes, **measured}
        text = json.dumps(rows, indent=1, ensure_ascii=False)
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    print(table(rows))


if __name__ == "__main__":
    main()
