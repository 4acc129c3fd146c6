"""Measures the suite's projections on unseen scenes: what the captions tell, and what the nearest tokens show.

    python -m experiments.emoji_world.evaluate --config emoji_clip_linear --scenes build/emoji_world/scenes/eval

Captions are greedy after "A picture of". Everything is told beside what a wrong image (the next scene's) would give.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch

import limber_interp
from experiments.emoji_world.corpus import BESIDE, PROMPT
from experiments.emoji_world.world import CATEGORY_OF, NOUNS, OPPOSITE
from limber_interp.datasets import Example, open_dataset, read_folder
from limber_interp.encodings import encode_once
from limber_interp.models.limber import Limber
from limber_interp.probes import nearest_tokens
from limber_interp.training.examples import Stored, in_batches
from limber_interp.training.held_out import held_out_losses

K = 5
RELATION_OF = {words: relation for relation, words in BESIDE.items()}
TOLD = re.compile(
    rf"a (?P<size1>\w+) (?P<noun1>\w+)(?: (?P<relation>{'|'.join(RELATION_OF)}) a (?P<size2>\w+) (?P<noun2>\w+))?"
    r" (?:on|in) the (?P<background>\w+)"
)


def score(caption: str, facts: dict) -> dict[str, float]:
    """What a caption tells rightly of a scene's facts, each 0 to 1; NaN where the scene has no such fact.

    - nouns: share of the scene's nouns among the told ones; categories: the same for their categories, counted;
    - sizes: the told sizes are the scene's, in any order; background: is the told one;
    - relation (two objects): the one told is that of the nouns as told, at least one of which is in the scene.
    """
    match = TOLD.match(caption)
    told = match.groupdict() if match else {}
    nouns = [told[key] for key in ("noun1", "noun2") if told.get(key)]
    categories = [CATEGORY_OF.get(noun) for noun in nouns]
    shared = sum(min(categories.count(c), facts["categories"].count(c)) for c in set(facts["categories"]))
    relation = float("nan")
    if facts["relation"]:
        first, second = facts["nouns"]
        expected = None
        if nouns[:1] == [first] or nouns[1:2] == [second]:
            expected = facts["relation"]
        elif nouns[:1] == [second] or nouns[1:2] == [first]:
            expected = OPPOSITE[facts["relation"]]
        relation = float(expected is not None and RELATION_OF.get(str(told.get("relation"))) == expected)
    return {
        "nouns": float(np.mean([noun in nouns for noun in facts["nouns"]])),
        "categories": shared / len(facts["categories"]),
        "sizes": float(sorted(told[k] for k in ("size1", "size2") if told.get(k)) == sorted(facts["sizes"])),
        "relation": relation,
        "background": float(told.get("background") == facts["background"]),
    }


def captions(model: Limber, examples: list[Example], batch_size: int = 100) -> list[str]:
    found: list[str] = []
    for start in range(0, len(examples), batch_size):
        found += model.caption([example.image for example in examples[start : start + batch_size]], prompt=PROMPT)
    return found


def hits(token_ids: np.ndarray, wanted: list[set[int]]) -> float:
    """Share of a scene's nouns among the k nearest tokens of at least one position; `token_ids` (scene, pos, k)."""
    found = [len(ids & set(near.ravel().tolist())) / len(ids) for near, ids in zip(token_ids, wanted, strict=True)]
    return round(float(np.mean(found)), 4)


def nearest(model: Limber, examples: list[Example], seed: int) -> dict[str, float]:
    """hit@5 of the nearest tokens (cosine, W_E) beside its controls: the next scene's prompt, Gaussian vectors of the
    same norms, and the same encodings through a random map."""
    wanted = [{model.vocabulary.id_of(noun) for noun in example.metadata["nouns"]} for example in examples]
    record = nearest_tokens(model, [example.image for example in examples], k=K, controls=False, seed=seed)
    token_ids = np.stack([image.token_ids for image in record.images])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((*token_ids.shape[:2], model.lm.cfg.d_model), generator=generator)
    weight = torch.randn(model.projection.linear.weight.shape, generator=generator)
    batches = [examples[i : i + 100] for i in range(0, len(examples), 100)]
    encoding = torch.cat([model.encode([example.image for example in batch]) for batch in batches])
    through = (
        ((encoding - encoding.mean((0, 1))) @ weight.T).unflatten(-1, (model.projection.n_tokens, -1)).flatten(1, 2)
    )
    return {
        "right image": hits(token_ids, wanted),
        "wrong image": hits(np.roll(token_ids, -1, axis=0), wanted),
        "noise": hits(_nearest_ids(model, noise), wanted),
        "random map": hits(_nearest_ids(model, through), wanted),
    }


def _nearest_ids(model: Limber, vectors: torch.Tensor) -> np.ndarray:
    used = model.vocabulary.rows
    rows = torch.nn.functional.normalize(used.pick(model.lm.W_E).float(), dim=-1)
    cosine = torch.nn.functional.normalize(vectors, dim=-1) @ rows.T  # norms do not matter to the cosine
    return used.at(cosine.topk(K).indices).numpy()


def measure(model: Limber, scenes: Path, encodings_folder: Path, seed: int = 0) -> dict:
    examples = read_folder(scenes)
    facts = [example.metadata for example in examples]
    told = captions(model, examples)
    right = [score(caption, fact) for caption, fact in zip(told, facts, strict=True)]
    wrong = [score(caption, fact) for caption, fact in zip(told, facts[1:] + facts[:1], strict=True)]

    def mean(scores: list[dict[str, float]], key: str, where: list[bool] | None = None) -> float | None:
        kept = [s[key] for s, w in zip(scores, where or [True] * len(scores), strict=True) if w]
        return round(float(np.nanmean(kept)), 4) if kept else None

    one = [len(fact["nouns"]) == 1 for fact in facts]
    encodings = encode_once(model.encoder, open_dataset(scenes), encodings_folder, max_rejected=0.0)
    losses = held_out_losses(model, in_batches(Stored(encodings)))
    return {
        "scenes": len(examples),
        "nouns": mean(right, "nouns"),
        "nouns, one object": mean(right, "nouns", one),
        "nouns, two objects": mean(right, "nouns", [not o for o in one]),
        "nouns, wrong image": mean(wrong, "nouns"),
        **{key: mean(right, key) for key in ("categories", "sizes", "background", "relation")},
        **{f"{key}, wrong image": mean(wrong, key) for key in ("categories", "sizes", "background", "relation")},
        "loss": {kind: round(value, 4) for kind, value in losses.items()},
        "hit@5 of the nearest tokens": nearest(model, examples, seed),
        "first captions": [f"{','.join(f['nouns'])}: {c}" for f, c in zip(facts, told, strict=True)][:4],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="emoji_clip_linear")
    parser.add_argument("--projection", help="another projection than the config's")
    parser.add_argument("--lm", help="another language model than the config's")
    parser.add_argument("--scenes", type=Path, default=Path("build/emoji_world/scenes/eval"))
    parser.add_argument("--encodings", type=Path, default=Path("build/emoji_world/encodings"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    model = limber_interp.load(args.config, lm=args.lm, projection=args.projection, dtype="float32")
    assert all(model.vocabulary.id_of(noun) for noun in NOUNS)
    print(json.dumps(measure(model, args.scenes, args.encodings), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
