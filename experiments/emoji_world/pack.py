"""Packs scenes into tar files, named as img2dataset names its shards.

    python -m experiments.emoji_world.pack --scenes build/emoji_world/scenes/few --out build/few --quality 85

The same scenes give the same bytes.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from limber_interp.datasets import read_folder
from limber_interp.records import write_atomically

IN_A_TAR = 10_000


def pack(scenes: Path, out: Path, quality: int | None = None) -> None:
    """Write `<shard>.tar` into `out`: the pictures as they are, or as JPEG of a quality, and their captions."""
    out.mkdir(parents=True, exist_ok=True)
    examples = read_folder(scenes)
    for start in range(0, len(examples), IN_A_TAR):

        def write(path: Path, start: int = start) -> None:
            with tarfile.open(path, "w") as tar:
                for place, example in enumerate(examples[start : start + IN_A_TAR], start):
                    _add(tar, f"{place:09d}.json", json.dumps({"captions": example.captions}).encode())
                    picture = Path(example.image).read_bytes()
                    if quality is None:
                        _add(tar, f"{place:09d}{Path(example.image).suffix}", picture)
                    else:
                        buffer = io.BytesIO()
                        Image.open(io.BytesIO(picture)).save(buffer, "JPEG", quality=quality)
                        _add(tar, f"{place:09d}.jpg", buffer.getvalue())

        write_atomically(out / f"{start // IN_A_TAR:05d}.tar", write)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # time and owner 0: the same bytes every time
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", type=int, help="of JPEG; none: the files as they are")
    args = parser.parse_args(arguments)
    pack(args.scenes, args.out, args.quality)


if __name__ == "__main__":
    main()
