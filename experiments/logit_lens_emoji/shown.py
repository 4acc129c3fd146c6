"""The experiment's figure and table, from its results alone."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from limber_interp.records import write_atomically

STYLES = {  # told apart without colours too
    "image": ("#1b5e9b", "-", "o", 2.2),
    "noise": ("#8a8a8a", ":", "", 1.4),
    "random_map": ("#8a8a8a", "-.", "", 1.4),
    "random_encoder": ("#b5651d", "--", "", 1.4),
    "mean_prompt": ("#555555", (0, (1, 3)), "", 1.4),
    "other_images": ("#2e7d32", (0, (5, 1)), "", 1.4),
}


def draw(results: dict, path: Path) -> None:
    """A panel per encoder: the share by layer, left of it the nearest tokens'; each with its 95 % interval."""
    configs = results["configs"]
    sheet = Figure(figsize=(11, 6.6), layout="constrained")
    FigureCanvasAgg(sheet)
    panels = sheet.subplots(2, 3, sharey=True, sharex=True).ravel()
    for axes, (config, found) in zip(panels, configs.items(), strict=True):
        for name, values in found.items():
            mean, low, high = np.array(values)
            colour, line, marker, width = STYLES[name]
            layers = np.arange(len(mean) - 1)
            axes.plot(
                layers,
                mean[1:],
                linestyle=line,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=width,
                label=name.replace("_", " "),
            )
            axes.fill_between(layers, low[1:], high[1:], color=colour, alpha=0.15, linewidth=0)
            error = [[mean[0] - low[0]], [high[0] - mean[0]]]
            axes.errorbar(-1.3, mean[0], np.maximum(error, 0), fmt=marker or "_", color=colour, markersize=5, capsize=2)
        axes.set_title(config, fontsize=10)
        axes.axvline(-0.65, color="#cccccc", linewidth=0.8)
        axes.set_xticks([-1.3, *layers], ["near\n$W_E$", *map(str, layers)])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    panels[0].set_ylim(-0.02, 1.02)
    for axes in panels[3:]:
        axes.set_xlabel("layer of the logit lens (0: the soft prompt)")
    sheet.supylabel(f"share of object patches with their noun in the top {results['k']}", fontsize=10)
    title = (
        f"{results['scenes']} unseen scenes; left of the line the nearest rows of $W_E$ (cosine); bands: 95 % bootstrap"
    )
    sheet.suptitle(title, fontsize=10)
    sheet.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    write_atomically(path, lambda temporary: sheet.savefig(temporary, dpi=160))


def table(results: dict) -> str:
    """Markdown: nearest tokens, and the lens at every layer, with the highest control at each."""
    configs = results["configs"]
    n = len(next(iter(configs.values()))["image"][0])
    lines = ["| config | of | nearest tokens | " + " | ".join(f"layer {layer}" for layer in range(n - 1)) + " |"]
    lines.append("|---|---|" + "---:|" * n)
    for config, found in configs.items():
        for name, values in found.items():
            cells = [
                f"{mean:.2f} ({low:.2f}–{high:.2f})" if name == "image" else f"{mean:.2f}"
                for mean, low, high in zip(*values, strict=True)
            ]
            lines.append(
                f"| {f'`{config}`' if name == 'image' else ''} | {name.replace('_', ' ')} | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines)
