"""Writes the stages' reports into the README.md of this folder and of the project, between marks; no number by hand."""

import json
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
ROWS = {
    "CLIP": "emoji_clip_linear",
    "CLIP, seed 1": "emoji_clip_linear_seed1",
    "CLIP, seed 2": "emoji_clip_linear_seed2",
    "CLIP, held-out pairs": "emoji_clip_linear_held_out_pairs",
    "CLIP, language model without word maps": "without_word_maps",
    "BEiT-FT": "emoji_beit_ft_linear",
    "NF-ResNet": "emoji_nfrn_linear",
    "BEiT": "emoji_beit_linear",
    "NF-ResNet, random": "emoji_nfrn_random_linear",
    "BEiT, random": "emoji_beit_random_linear",
}
SHIPPED = {
    "emoji_clip_linear": "ModifiedResNet, contrastive with captions",
    "emoji_nfrn_linear": "NF-ResNet, noun labels, pooled to one vector",
    "emoji_beit_ft_linear": "BEiT, fine-tuned on noun labels",
    "emoji_beit_linear": "BEiT, masked image modelling",
    "emoji_nfrn_random_linear": "NF-ResNet, random weights",
    "emoji_beit_random_linear": "BEiT, random weights",
}
PROBES = {
    "CLIP": "clip",
    "BEiT-FT": "beit_ft",
    "NF-ResNet": "nfresnet",
    "BEiT": "beit",
    "NF-ResNet, random": "probe_emoji_nfrn_random_linear",
    "BEiT, random": "probe_emoji_beit_random_linear",
}
SUMMARY = ("nouns named", "wrong image's", "nearest-token hit@5", "wrong image's")
NEAREST = ("right image", "wrong image", "noise", "random map")
TOLD = (
    "nouns",
    "nouns, one object",
    "nouns, two objects",
    "nouns, wrong image",
    "categories",
    "sizes",
    "background",
    "relation",
)


def table(head: list[str], rows: list[list[Any]], digits: int = 3) -> str:
    ruler = ["---" if any(isinstance(row[i], str) for row in rows) else "---:" for i in range(len(head))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ruler)]
    return "\n".join(lines + ["| " + " | ".join(_cell(value, digits) for value in row) + " |" for row in rows])


def _cell(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else "–" if value is None else str(value)


def _columns(reports: dict[str, dict], keys: tuple[str, ...]) -> str:
    return table(["", *keys], [[row, *(report[key] for key in keys)] for row, report in reports.items()])


def _evaluated(reports: dict[str, dict]) -> dict[str, dict]:
    return {row: reports[f"eval_{stage}"] for row, stage in ROWS.items() if f"eval_{stage}" in reports}


def tables(reports: dict[str, dict], remade: dict[str, dict]) -> str:
    """Of the shipped suite, and of the same made again in one go, whose minutes are those of an idle machine."""
    evaluated = _evaluated(reports)
    probed = {row: reports[stage]["linear probe"] for row, stage in PROBES.items() if stage in reports}
    near = "hit@5 of the nearest tokens"
    blocks = [
        "### What the captions tell (500 unseen scenes, greedy, `A picture of`)\n\n" + _columns(evaluated, TOLD),
        "### Loss on unseen captions, nats per token\n\n"
        + _columns({row: report["loss"] for row, report in evaluated.items()}, ("right", "wrong", "none")),
        "### hit@5 of the nearest tokens (cosine, `W_E`), beside the controls\n\n"
        + _columns({row: report[near] for row, report in evaluated.items()}, NEAREST),
        "### Linear probe on the encodings: what was there to be carried over\n\n"
        + _columns(probed, ("nouns", "background", "relation")),
    ]
    for title, stages in (
        ("Language model", ("lm", "lm_without_word_maps")),
        ("Encoders", ("clip", "nfresnet", "beit", "beit_ft")),
    ):
        for stage in stages:
            if stage in reports:
                told = {k: v for k, v in reports[stage].items() if k != "linear probe"}
                blocks.append(f"### {title}: `{stage}`\n\n```json\n{json.dumps(told, indent=1)}\n```")
    blocks.append("### Made again in one go: what the captions tell\n\n" + _columns(_evaluated(remade), TOLD))
    blocks.append("### Made again in one go: minutes per stage\n\n" + minutes(remade))
    return "\n\n".join(blocks)


def minutes(reports: dict[str, dict]) -> str:
    """What all stages took together, and each, the longest first."""
    took = {stage: float(report["stage_minutes"]) for stage, report in reports.items()}
    longest = sorted(took, key=lambda stage: -took[stage])
    rows: list[list[Any]] = [["**all**", sum(took.values())], *([f"`{stage}`", took[stage]] for stage in longest)]
    return table(["stage", "minutes"], rows, digits=1)


def summary(reports: dict[str, dict]) -> str:
    """The six shipped configs, for the project's README."""
    head = ["config", "encoder, and what trained it", *SUMMARY]
    rows: list[list[Any]] = []
    for config, encoder in SHIPPED.items():
        if report := reports.get(f"eval_{config}"):
            near = report["hit@5 of the nearest tokens"]
            numbers = [report["nouns"], report["nouns, wrong image"], near["right image"], near["wrong image"]]
            rows.append([f"`{config}`", encoder, *numbers])
    return table(head, rows)


def read(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def write_tables(folder: Path, remade: Path, readme: Path, project_readme: Path) -> None:
    reports = read(folder)
    for file, text in ((readme, tables(reports, read(remade))), (project_readme, summary(reports))):
        before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
