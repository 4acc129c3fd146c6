"""How fast the device is at what the toolkit does, at GPT-J-6B's shape with random weights."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks import captioning, forward, load_gptj, logit_lens, nearest_tokens, random_gptj, train_step
from experiments.benchmarks.gpu.sizes import Sizes
from experiments.benchmarks.tables import Table
from experiments.benchmarks.watching import GIB, peak, start_watching, wait
from limber_interp.config import load_config
from limber_interp.models.encoders import load_encoder
from limber_interp.models.projection import Projection
from limber_interp.resources import example_image


def rates(device: str, sizes: Sizes) -> Iterator[Table]:
    """What the device can do at best: matrix products, and copies within its memory."""
    rows = []
    for dtype in ("bfloat16", "float32"):
        options = train_step.Options(device=device, dtype=dtype, square=sizes.square)  # type: ignore[arg-type]
        rows.append((f"matrix product, {dtype}", train_step.matrix_rate(options) / 1e12, "TFLOP/s"))
    n_bytes = 2**30 if torch.device(device).type == "cuda" else 2**22
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _median_seconds(lambda: target.copy_(source), device, 5)
    rows.append(("copy within the device's memory (read and written)", 2 * n_bytes / seconds / 1e9, "GB/s"))
    yield Table(f"What {device} can do", ("operation", "rate", "unit"), tuple(rows))


def load(device: str, sizes: Sizes) -> Iterator[Table]:
    """Loading from a mapped file on the local disk, beside Hugging Face; the file is written first."""
    began = time.perf_counter()
    random_gptj.benchmark(sizes.layers, sizes.d_model, sizes.dtype, device)
    written = time.perf_counter() - began
    options = load_gptj.Options(sizes.layers, sizes.d_model, sizes.dtype, device, methods=sizes.loaders, rounds=1)
    table = load_gptj.measure(options)
    yield replace(table, notes=(*table.notes, f"Drawing the weights and writing them took {written:.0f} s."))


def one_forward(device: str, sizes: Sizes) -> Iterator[Table]:
    yield forward.measure(
        forward.Options(
            layers=sizes.layers,
            d_model=sizes.d_model,
            positions=sizes.positions,
            batch=sizes.images,
            dtype=sizes.dtype,
            stored=sizes.dtype,
            device=device,
            rounds=sizes.rounds,
        )
    )


def lens(device: str, sizes: Sizes) -> Iterator[Table]:
    """Goal: at most 1.25 of forward + bare products."""
    yield logit_lens.measure(
        logit_lens.Options(
            layers=sizes.layers,
            d_model=sizes.d_model,
            images=sizes.images,
            positions=sizes.positions,
            dtype=sizes.dtype,
            stored=sizes.dtype,
            device=device,
            rounds=sizes.rounds,
            naive=False,
        )
    )


def neighbours(device: str, sizes: Sizes) -> Iterator[Table]:
    positions = sizes.images * sizes.positions
    yield nearest_tokens.measure(
        nearest_tokens.Options(positions, sizes.d_model, rounds=sizes.rounds, device=device, peers=False)
    )


def encoders(device: str, sizes: Sizes) -> Iterator[Table]:
    """Images a second of `soft_prompt` for each encoder, float32, from pixels on the device and from image files."""
    from limber_interp.images import load_image

    rows = []
    image = load_image(example_image())
    for name in sizes.encoders:
        encoder = load_encoder(load_config(name, pretrained_img_encoder=False), device)
        projection = Projection(encoder.d_encoder, sizes.d_model).to(device)
        pixels = torch.stack([encoder.preprocess(image)] * sizes.encoder_images).to(device)

        @torch.no_grad()
        def prompt(encoder=encoder, projection=projection, pixels=pixels) -> object:
            return projection(encoder(pixels))

        seconds = _median_seconds(prompt, device, sizes.rounds)
        opening = _median_seconds(lambda encoder=encoder: encoder.preprocess(image), "cpu", sizes.rounds)
        rows.append((name, sizes.encoder_images / seconds, 1 / opening))
        del encoder, projection, pixels, prompt
        _release()
    yield Table(
        f"soft_prompt in batches of {sizes.encoder_images}, float32, {device}",
        ("encoder, random weights", "images/s", "images/s preprocessed by one CPU thread"),
        tuple(rows),
    )


def captions(device: str, sizes: Sizes) -> Iterator[Table]:
    yield captioning.measure(
        captioning.Options(
            layers=sizes.layers,
            d_model=sizes.d_model,
            images=4 * sizes.images,
            batch_sizes=(sizes.images, 4 * sizes.images),
            alone=1,
            dtype=sizes.dtype,
            stored=sizes.dtype,
            device=device,
            rounds=sizes.rounds,
            max_new_tokens=20 if sizes.layers > 2 else 3,
            exact=sizes.dtype == "float32",
        )
    )


def training(device: str, sizes: Sizes) -> Iterator[Table]:
    """Goal: at least 0.40 of the device's measured matrix rate."""
    for batch in sizes.train_batches:
        yield train_step.measure(_training(device, sizes, batch))
        _release()


def profiled(device: str, sizes: Sizes) -> Iterator[Table]:
    """Where the time of a training step goes: the ten operations that take most of it."""
    bench = train_step.Bench(_training(device, sizes, sizes.train_batches[0]))
    bench.step(train_step.OURS)
    cuda = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        bench.step(train_step.OURS)
        wait(device)
    taken = sorted(
        (event.self_device_time_total if cuda else event.self_cpu_time_total, event.key, event.count)
        for event in found.key_averages()
    )[::-1]
    whole = sum(time for time, *_ in taken)
    rows = tuple((name[:60], time / 1e3, time / whole, count) for time, name, count in taken[:10])
    yield Table(f"A training step on {device}, profiled", ("operation", "ms", "share", "calls"), rows)


def memory_of_the_lens(device: str, sizes: Sizes) -> Iterator[Table]:
    """What a lens keeps beside the model: its float32 copy of W_U, where the model is in half precision."""
    from limber_interp.models import load_hooked_gptj
    from limber_interp.probes.lens import UnembeddingLens

    folder = random_gptj.benchmark(sizes.layers, sizes.d_model, sizes.dtype, device)
    lm = load_hooked_gptj(folder, sizes.dtype, device)
    before = start_watching(device)
    kept = UnembeddingLens(lm, random_gptj.N_TOKENS)
    copied = kept._rows.data_ptr() != lm.W_U.data_ptr()
    rows = (("UnembeddingLens", peak(device) - before, kept._rows.nbytes / GIB if copied else 0.0),)
    yield Table("Memory of the lens", ("what", "GiB more while it is built", "GiB of its own copy of W_U"), rows)


def _training(device: str, sizes: Sizes, batch: int) -> train_step.Options:
    return train_step.Options(
        layers=sizes.layers,
        d_model=sizes.d_model,
        batch=batch,
        width=sizes.train_width,
        dtype=sizes.dtype,  # type: ignore[arg-type]
        device=device,
        methods=(train_step.OURS, train_step.CHECKPOINTED),
        rounds=sizes.rounds,
        square=sizes.square,
    )


def _median_seconds(work: Callable[[], object], device: str, rounds: int) -> float:
    """After one round of warm-up."""
    seconds = []
    for _ in range(1 + rounds):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
