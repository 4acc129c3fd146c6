"""Speed of the nearest-token search, as a ratio to the bare matrix product + top-k and to two exact peers.

    python -m experiments.benchmarks.nearest_tokens --threads 2

All methods take turns within a round, so that what else the machine does falls on all of them alike; the first round is
warm-up. Ratios are medians over rounds of the ratio within a round.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from threadpoolctl import threadpool_limits

from experiments.benchmarks.tables import Table, heading
from experiments.benchmarks.watching import wait
from limber_interp.probes.lens import METRICS, EmbeddingLens, read

BARE = "bare product + topk"


@dataclass(frozen=True)
class Options:
    """By default 8 images of 196 positions against GPT-J-6B's vocabulary."""

    positions: int = 1568
    d_model: int = 4096
    rows: int = 50_257
    k: int = 5
    watched: int = 1000
    """Words to rank in the last variant."""
    rounds: int = 5
    threads: int = 1
    device: str = "cpu"
    peers: bool = True
    """Measure faiss and scikit-learn too, which compute on the CPU."""


Search = Callable[[], np.ndarray | torch.Tensor]


def methods(options: Options) -> dict[str, Search]:
    """Name -> a search that gives token ids. Indexes are built, rows normalised and norms taken beforehand."""
    generator = torch.Generator(options.device).manual_seed(0)
    shapes = (options.rows, options.d_model), (options.positions, options.d_model)
    rows, hidden = (torch.randn(shape, generator=generator, device=options.device) for shape in shapes)
    k = options.k
    lenses = {metric: EmbeddingLens(rows, metric) for metric in METRICS}
    watched = torch.arange(options.watched, device=options.device)
    found: dict[str, Search] = {
        BARE: lambda: (hidden @ rows.T).topk(k).indices,
        **{f"ours, {name}": lambda lens=lens: read(lens, hidden, k).ids for name, lens in lenses.items()},
        f"ours, cosine, {options.watched} ranks": lambda: read(lenses["cosine"], hidden, k, watched).ids,
    }
    return found | (_peers(rows.cpu(), hidden.cpu(), k) if options.peers else {})


def _peers(rows: torch.Tensor, hidden: torch.Tensor, k: int) -> dict[str, Search]:
    import faiss
    from sklearn.neighbors import NearestNeighbors

    faiss.omp_set_num_threads(torch.get_num_threads())
    inner = faiss.IndexFlatIP(rows.shape[1])
    inner.add(torch.nn.functional.normalize(rows).numpy())
    distance = faiss.IndexFlatL2(rows.shape[1])
    distance.add(rows.numpy())
    brute = {
        metric: NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(rows.numpy())
        for metric in ("cosine", "euclidean")
    }
    return {
        "faiss-cpu, IndexFlatIP (cosine)": lambda: inner.search(hidden.numpy(), k)[1],
        "faiss-cpu, IndexFlatL2": lambda: distance.search(hidden.numpy(), k)[1],
        "scikit-learn brute, cosine": lambda: brute["cosine"].kneighbors(hidden.numpy(), return_distance=False),
        "scikit-learn brute, euclidean": lambda: brute["euclidean"].kneighbors(hidden.numpy(), return_distance=False),
    }


def measure(options: Options) -> Table:
    """The search beside the bare product, and beside exact peers."""
    with threadpool_limits(options.threads):
        searches = methods(options)
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        found = {}
        for _ in range(1 + options.rounds):
            for name, search in searches.items():
                start = time.perf_counter()
                ids = search()
                wait(options.device)
                found[name] = np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids)
                seconds[name].append(time.perf_counter() - start)
    peers = (("cosine", "faiss-cpu, IndexFlatIP (cosine)"), ("euclidean", "faiss-cpu, IndexFlatL2"))
    for ours, peer in peers if options.peers else ():
        same = (found[f"ours, {ours}"] == found[peer]).mean()
        assert same > 0.999, f"{peer} finds other neighbours: {same:.1%} equal"
    bare = seconds[BARE][1:]
    rows = []
    for name, times in seconds.items():
        ratio = statistics.median(b / t for b, t in zip(bare, times[1:], strict=True))
        rows.append((name, statistics.median(times[1:]), ratio))
    return Table(
        f"Nearest tokens of {options.positions:,} x {options.d_model:,} against {options.rows:,} rows, float32, "
        f"k = {options.k}, {options.device}",
        ("method", "median s", "speed, bare = 1"),
        tuple(rows),
    )


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(heading(options.device, options.threads))
    print(measure(options).markdown())


if __name__ == "__main__":
    main(tyro.cli(Options))
