"""Speed of the nearest-token search, as a ratio to the bare matrix product + top-k and to two exact peers.

    python -m experiments.benchmarks.nearest_tokens --threads 2

All methods take turns within a round, so that what else the machine does falls on all of them alike; the first round is
warm-up. Ratios are medians over rounds of the ratio within a round.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
import torch
import tyro
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from limber_interp.probes.lens import METRICS, EmbeddingLens, read


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


def methods(options: Options) -> dict[str, Callable[[], np.ndarray | torch.Tensor]]:
    """Name -> a search that gives token ids. Indexes are built, rows normalised and norms taken beforehand."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(options.rows, options.d_model, generator=generator)
    hidden = torch.randn(options.positions, options.d_model, generator=generator)
    k = options.k
    lenses = {metric: EmbeddingLens(rows, metric) for metric in METRICS}
    watched = torch.arange(options.watched)

    inner = faiss.IndexFlatIP(options.d_model)
    inner.add(torch.nn.functional.normalize(rows).numpy())
    distance = faiss.IndexFlatL2(options.d_model)
    distance.add(rows.numpy())
    brute = {
        metric: NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(rows.numpy())
        for metric in ("cosine", "euclidean")
    }
    return {
        "bare product + topk": lambda: (hidden @ rows.T).topk(k).indices,
        **{f"ours, {name}": lambda lens=lens: read(lens, hidden, k).ids for name, lens in lenses.items()},
        f"ours, cosine, {options.watched} ranks": lambda: read(lenses["cosine"], hidden, k, watched).ids,
        "faiss-cpu, IndexFlatIP (cosine)": lambda: inner.search(hidden.numpy(), k)[1],
        "faiss-cpu, IndexFlatL2": lambda: distance.search(hidden.numpy(), k)[1],
        "scikit-learn brute, cosine": lambda: brute["cosine"].kneighbors(hidden.numpy(), return_distance=False),
        "scikit-learn brute, euclidean": lambda: brute["euclidean"].kneighbors(hidden.numpy(), return_distance=False),
    }


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        searches = methods(options)
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        found = {}
        for _ in range(1 + options.rounds):
            for name, search in searches.items():
                start = time.perf_counter()
                found[name] = np.asarray(search())
                seconds[name].append(time.perf_counter() - start)
    for ours, peer in (("cosine", "faiss-cpu, IndexFlatIP (cosine)"), ("euclidean", "faiss-cpu, IndexFlatL2")):
        same = (found[f"ours, {ours}"] == found[peer]).mean()
        assert same > 0.999, f"{peer} finds other neighbours: {same:.1%} equal"
    bare = seconds["bare product + topk"][1:]
    print(f"{options}\n\n| method | median s | speed, bare = 1 |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(b / t for b, t in zip(bare, times[1:], strict=True))
        print(f"| {name} | {statistics.median(times[1:]):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
