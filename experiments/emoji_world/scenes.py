"""Draws scenes of the emoji world with the Noto Color Emoji font, and writes them in LIMBER's folder format.

    python -m experiments.emoji_world.scenes --seed 1 --count 1000 --out data/emoji/train

The same seed gives the same files. The font is needed only here (Debian: fonts-noto-color-emoji).
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from experiments.emoji_world.asked import asked
from experiments.emoji_world.corpus import captions
from experiments.emoji_world.world import EMOJI, Scene, sample_scene

IMAGE_SIZE = 96
DIAMETER = {"small": (24, 30), "big": (40, 47)}  # pixels, drawn uniformly
STRIKE = 109  # the one bitmap size that the font holds
SPRITE = 72  # side in pixels at which a glyph is turned: well above the largest that is drawn, and quick
FONT_PATHS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf"),
    Path.home() / ".fonts/NotoColorEmoji.ttf",
)
# Two tones of each background, between which its texture moves.
TONES = {
    "grass": ((58, 125, 52), (118, 178, 80)),
    "sand": ((222, 190, 130), (244, 220, 168)),
    "snow": ((222, 230, 240), (252, 253, 255)),
    "water": ((40, 110, 190), (90, 170, 225)),
    "night": ((12, 14, 38), (38, 40, 84)),
    "brick": ((140, 62, 48), (178, 92, 72)),
    "wood": ((120, 82, 48), (168, 122, 78)),
    "sunset": ((226, 96, 70), (252, 190, 110)),
}


class FontMissing(FileNotFoundError):
    """The emoji font is not installed; the message says what to install."""


def font_path() -> Path:
    for path in FONT_PATHS:
        if path.exists():
            return path
    raise FontMissing(
        "NotoColorEmoji.ttf: not found in the usual font folders; install Noto Color Emoji "
        "(Debian and Ubuntu: apt-get install fonts-noto-color-emoji)"
    )


@functools.cache
def sprite(noun: str) -> Image.Image:
    """The noun's emoji as RGBA, cropped to what is painted, padded to a square of `SPRITE` pixels."""
    font = ImageFont.truetype(str(font_path()), STRIKE)
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 12), EMOJI[noun], font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise FontMissing(
            f"{font_path()}: it has no glyph for {noun} {EMOJI[noun]}; install a current Noto Color Emoji"
        )
    glyph = canvas.crop(box)
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return square.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)


def _background(name: str, rng: np.random.Generator) -> Image.Image:
    """A two-tone texture: smooth noise, stretched along the direction that the name suggests, with fine grain."""
    low, high = (np.asarray(tone, dtype=np.float32) for tone in TONES[name])
    cells = {"water": (12, 3), "wood": (3, 14), "sunset": (5, 1), "grass": (16, 16)}.get(name, (6, 6))
    coarse = Image.fromarray(rng.integers(0, 256, size=cells, dtype=np.uint8))
    mix = np.asarray(coarse.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    if name == "brick":
        row, column = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] + int(rng.integers(0, 12))
        mortar = (row % 12 < 2) | ((column + 12 * (row // 12 % 2)) % 24 < 2)
        mix = np.where(mortar, 1.6, mix * 0.8)
    if name == "sunset":
        mix = 0.3 * mix + 0.7 * np.linspace(0, 1, IMAGE_SIZE, dtype=np.float32)[:, None]
    pixels = low + (high - low) * mix[..., None] + rng.normal(0, 6, size=(IMAGE_SIZE, IMAGE_SIZE, 1))
    if name == "night":
        stars = rng.random((IMAGE_SIZE, IMAGE_SIZE)) < 0.006
        pixels[stars] = 230
    pixels += rng.normal(0, 5, size=3)  # the light differs from scene to scene
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _places(scene: Scene, diameters: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Upper left corners. Two objects are apart along the axis of their relation and roughly level across it."""
    room = [IMAGE_SIZE - diameter for diameter in diameters]
    if scene.relation is None:
        return [(int(rng.integers(0, room[0] + 1)), int(rng.integers(0, room[0] + 1)))]
    first, second = (0, 1) if scene.relation in ("left", "above") else (1, 0)
    slack = IMAGE_SIZE - sum(diameters)
    start, gap = sorted(int(x) for x in rng.integers(0, slack + 1, size=2))
    along = {first: start, second: diameters[first] + gap}
    across = rng.integers(0, min(room) + 1)
    sideways = {i: int(np.clip(across + rng.integers(-8, 9), 0, room[i])) for i in (0, 1)}
    if scene.relation in ("left", "right"):
        return [(along[i], sideways[i]) for i in (0, 1)]
    return [(sideways[i], along[i]) for i in (0, 1)]


def draw(scene: Scene, rng: np.random.Generator) -> tuple[Image.Image, list[list[int]]]:
    """The picture (RGB, 96 × 96) and one box [left, top, right, bottom] in pixels for each noun."""
    picture = _background(scene.background, rng)
    diameters = [int(rng.integers(DIAMETER[size][0], DIAMETER[size][1] + 1)) for size in scene.sizes]
    boxes = []
    for noun, diameter, (left, top) in zip(scene.nouns, diameters, _places(scene, diameters, rng), strict=True):
        glyph = sprite(noun)
        if rng.random() < 0.5:
            glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        glyph = glyph.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BILINEAR)
        glyph = glyph.resize((diameter, diameter), Image.Resampling.BILINEAR)
        picture.paste(glyph, (left, top), glyph)
        boxes.append([left, top, left + diameter, top + diameter])
    return picture, boxes


def pixels_of(scenes: list[Scene], rng: np.random.Generator) -> torch.Tensor:
    """(scene, 3, 96, 96) float32 in [0, 1], drawn in memory: the encoders never see the same picture twice."""
    pictures = np.stack([np.asarray(draw(scene, rng)[0]) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)


def write(out: Path, seed: int, count: int, held_out: bool | None = False) -> None:
    """Writes `count` scenes as LIMBER's folder format: images/<id>.png and image_data/<n>/<id>.json."""
    font_path()  # a missing font is said before a folder is made
    rng = np.random.default_rng(seed)
    (out / "images").mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(count), desc=f"scenes → {out}", unit="scene", file=sys.stderr):
        scene = sample_scene(rng, held_out)
        picture, boxes = draw(scene, rng)
        name = f"{index:06d}"
        picture.save(out / "images" / f"{name}.png")
        record = {
            "image_path": f"images/{name}.png",
            "captions": captions(scene),
            "metadata": {
                "nouns": scene.nouns,
                "categories": scene.categories,
                "sizes": scene.sizes,
                "relation": scene.relation,
                "background": scene.background,
                "boxes": boxes,
                "held_out": scene.held_out,
                "questions": asked(scene),
            },
        }
        folder = out / "image_data" / str(index // 1000)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(record))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--pairs",
        choices=("training", "held-out", "any"),
        default="training",
        help="which noun pairs are drawn: all but the held-out ones, only those, or any",
    )
    args = parser.parse_args(arguments)
    if args.count < 1 or args.seed < 0:
        print(f"--count {args.count} --seed {args.seed}: count must be at least 1 and seed at least 0", file=sys.stderr)
        return 2
    if args.out.exists() and any(args.out.iterdir()):
        print(f"{args.out}: the folder is not empty; name a new one or remove it first", file=sys.stderr)
        return 2
    try:
        write(args.out, args.seed, args.count, {"training": False, "held-out": True, "any": None}[args.pairs])
    except FontMissing as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
