"""How large each stage is: at GPT-J-6B's shape on a card, or tiny, to rehearse every line of it on a CPU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What the stages are given.

    Attributes:
        layers, d_model: of the random GPT-J.
        dtype: in which it is stored and computes.
        images, positions: of the forward and of the lens.
        encoders: configs whose encoders are timed, with random weights.
        encoder_images: images of a batch of theirs.
        train_batches: images of a training step.
        train_width: of the training step's encoder, whose vectors are 32 times as wide.
        steps: of the training runs that are compared to the CPU's.
        scenes: bundled scenes on which the embedded suite is compared.
        loaders: ways to load the GPT-J, each in a process of its own.
        square: rows of the matrices whose product says what the device can do.
    """

    layers: int
    d_model: int
    dtype: str
    images: int
    positions: int
    encoders: tuple[str, ...]
    encoder_images: int
    train_batches: tuple[int, ...]
    train_width: int
    steps: int
    scenes: int
    rounds: int
    loaders: tuple[str, ...]
    square: int


FULL = Sizes(
    layers=28,
    d_model=4096,
    dtype="bfloat16",
    images=8,
    positions=160,
    encoders=("clip_linear", "nfrn50_4096_linear", "beit_linear"),
    encoder_images=32,
    train_batches=(8, 16, 32, 64),
    train_width=96,
    steps=20,
    scenes=12,
    rounds=3,
    loaders=("ours", "transformers"),
    square=8192,
)
TINY = Sizes(
    layers=2,
    d_model=256,
    dtype="float32",
    images=2,
    positions=12,
    encoders=("emoji_clip_linear",),
    encoder_images=2,
    train_batches=(2,),
    train_width=8,
    steps=2,
    scenes=2,
    rounds=1,
    loaders=("ours",),
    square=256,
)
