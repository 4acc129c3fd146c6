"""Puts trained projections where the embedded configs look for them, in float16 as the rest of the suite.

python -m experiments.emoji_world.publish build/emoji_world/projections/emoji_clip_linear.safetensors
"""

import argparse
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from limber_interp.records import write_atomically

OUT = Path("limber_weights/emoji/projections")


def publish(trained: Path, out: Path) -> None:
    """Writes `out` with the tensors of `trained` in float16 and its metadata, the manifest among it, as it is."""
    with safe_open(trained, framework="pt") as stored:
        half = {name: stored.get_tensor(name).half() for name in ("weight", "bias")}
        metadata = stored.metadata()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda temporary: save_file(half, temporary, metadata))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, nargs="+")
    for trained in parser.parse_args(arguments).trained:
        publish(trained, OUT / trained.name)


if __name__ == "__main__":
    main()
