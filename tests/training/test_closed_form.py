import json
from itertools import pairwise
from pathlib import Path
from string import ascii_letters

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limber_interp.config import load_config
from limber_interp.datasets import open_dataset
from limber_interp.encodings import encode
from limber_interp.errors import InputError
from limber_interp.models.limber import Limber, load
from limber_interp.train import main
from limber_interp.training.closed_form import STRENGTHS, Moments, fit, solve, squared_error
from limber_interp.training.engine import train
from tests.conftest import CAPTIONS

METHODS = ["least-squares", "ridge", "procrustes"]
IMAGES, POSITIONS, WIDTH = 100, 3, 8


def _moments(x: torch.Tensor, y: torch.Tensor, block: int = 1000) -> Moments:
    moments = Moments.none(x.shape[-1], y.shape[-1])
    for start in range(0, len(x), block):
        moments.add(x[start : start + block], y[start : start + block])
    return moments


def _off_centre(seed: int) -> torch.Tensor:
    return torch.randn(IMAGES, 1, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 3


def _rotation(rows: int, columns: int, seed: int) -> torch.Tensor:
    """(rows, columns) with orthonormal columns."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, dtype=torch.float64, generator=generator))[0]


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), d_out=st.integers(1, 12))
def test_least_squares_recovers_a_linear_map(seed: int, d_out: int) -> None:
    x = _off_centre(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    weight, bias = (torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((d_out, WIDTH), (d_out,)))
    found, found_bias = solve(_moments(x, x[:, 0] @ weight.T + bias), "least-squares")
    torch.testing.assert_close(found, weight, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found_bias, bias, rtol=1e-8, atol=1e-8)


def test_several_positions_are_one_regression_on_all_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, POSITIONS, WIDTH, dtype=torch.float64, generator=generator) + 1
    y = torch.randn(IMAGES, 5, dtype=torch.float64, generator=generator)
    weight, bias = solve(_moments(x, y), "least-squares")
    ones = torch.cat([x.flatten(0, 1), torch.ones(IMAGES * POSITIONS, 1)], dim=1)
    expected = torch.linalg.lstsq(ones, y.repeat_interleave(POSITIONS, 0)).solution.T
    torch.testing.assert_close(torch.cat([weight, bias[:, None]], dim=1), expected)
    residual = x.flatten(0, 1) @ weight.T + bias - y.repeat_interleave(POSITIONS, 0)
    assert squared_error(weight, bias, _moments(x, y)) == pytest.approx(float(residual.square().sum(1).mean()))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_ridge_shrinks_the_more_the_stronger(seed: int) -> None:
    x = _off_centre(seed)
    moments = _moments(x, torch.randn(IMAGES, 5, generator=torch.Generator().manual_seed(seed)))
    norms = [float(solve(moments, "ridge", strength)[0].norm()) for strength in (0.0, *STRENGTHS)]
    assert all(stronger < weaker for weaker, stronger in pairwise(norms))
    assert norms[0] == pytest.approx(float(solve(moments, "least-squares")[0].norm()))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), d_out=st.integers(WIDTH, 12))
def test_procrustes_recovers_a_rotation_and_its_scale(seed: int, d_out: int) -> None:
    x, rotation = _off_centre(seed), _rotation(d_out, WIDTH, seed)
    weight, bias = solve(_moments(x, 2.5 * x[:, 0] @ rotation.T + 7), "procrustes")
    torch.testing.assert_close(weight, 2.5 * rotation)
    torch.testing.assert_close(bias, torch.full((d_out,), 7.0, dtype=torch.float64))


@pytest.mark.parametrize("d_out", [3, WIDTH, 12])
def test_procrustes_is_orthogonal_up_to_its_scale(d_out: int) -> None:
    y = torch.randn(IMAGES, d_out, generator=torch.Generator().manual_seed(2))
    weight, _ = solve(_moments(_off_centre(1), y), "procrustes")
    gram = weight @ weight.T if d_out < WIDTH else weight.T @ weight
    torch.testing.assert_close(gram / gram[0, 0], torch.eye(len(gram), dtype=torch.float64))
    # The scale is the best one: no other leaves a smaller error.
    moments = _moments(_off_centre(1), y)
    errors = [squared_error(s * weight, moments.mean_y - s * weight @ moments.mean_x, moments) for s in (0.9, 1, 1.1)]
    assert min(errors) == errors[1]


def test_directions_without_variance_do_not_explode() -> None:
    x = _off_centre(0) @ torch.diag(torch.tensor([1.0] * (WIDTH - 2) + [0.0, 0.0], dtype=torch.float64))
    x = x @ _rotation(WIDTH, WIDTH, 1) + 100
    y = torch.randn(IMAGES, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weight, _ = solve(_moments(x, y), "least-squares")
    expected = torch.linalg.pinv(x[:, 0] - x[:, 0].mean(0), rtol=1e-8) @ (y - y.mean(0))
    torch.testing.assert_close(weight, expected.T, rtol=1e-6, atol=1e-6)


# On the tiny world


@pytest.fixture
def captions() -> list[list[str]]:
    """Loose letters, so that caption vectors vary in every direction of the embedding space."""
    rng = np.random.default_rng(0)
    return [[" ".join(rng.choice(list(ascii_letters), size=4))] for _ in range(IMAGES)]


@pytest.fixture
def encoded(tiny: Limber) -> np.ndarray:
    shape = IMAGES, POSITIONS, tiny.encoder.d_encoder
    return (np.random.default_rng(0).normal(size=shape) + 1).astype(np.float16)


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_size_give_the_same(tiny: Limber, captions, encoded: np.ndarray, method) -> None:
    whole = fit(tiny, captions, encoded, method, block_size=1000)
    with pytest.raises(InputError, match="block_size 0: expected at least 1"):
        fit(tiny, captions, encoded, method, block_size=0)
    for block_size in (1, 7):
        parts = fit(tiny, captions, encoded, method, block_size=block_size)
        assert parts.strength == whole.strength
        assert parts.r2 == pytest.approx(whole.r2)
        assert _relative(parts.weight, whole.weight) < 1e-5
        assert _relative(parts.bias, whole.bias) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_prompts_lie_as_far_from_their_mean_as_the_tokens_asked_for(tiny, captions, encoded, method) -> None:
    found = fit(tiny, captions, encoded, method)
    prompts = torch.from_numpy(encoded).float().flatten(0, 1) @ found.weight.T + found.bias
    told = [set(tiny.vocabulary.encode(caption)) for (caption,) in captions]
    idf = {id: np.log(IMAGES / sum(id in ids for ids in told)) for id in set.union(*told)}
    shares = [{id: idf[id] / sum(idf[i] for i in ids) for id in ids} for ids in told]
    vectors = [sum(share * tiny.lm.W_E[id] for id, share in of.items()) for of in shares]
    mean = torch.stack(vectors).mean(0)
    expected = sum(s * (tiny.lm.W_E[id] - mean).square().sum() for of in shares for id, s in of.items()) / IMAGES
    torch.testing.assert_close(prompts.mean(0), mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((prompts - mean).square().sum(1).mean(), expected, rtol=1e-3, atol=0)


def test_ridge_takes_little_where_there_is_no_noise_and_much_where_there_is_nothing_else(tiny: Limber) -> None:
    captions = [[caption] for caption in CAPTIONS] * 200
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(600, 1, tiny.encoder.d_encoder))
    told = noise.copy()
    told[:, 0, :3] += 50 * np.tile(np.eye(3), (200, 1))
    assert fit(tiny, captions, told, "ridge").strength < fit(tiny, captions, noise, "ridge").strength
    assert fit(tiny, captions, told, "ridge").r2 > 0.95


def test_what_cannot_be_fitted_is_refused(tiny: Limber, captions, encoded: np.ndarray) -> None:
    few = 8
    with pytest.raises(InputError, match=f"least-squares: found {few * POSITIONS} vectors of .* dimensions"):
        fit(tiny, captions[:few], encoded[:few], "least-squares")
    assert fit(tiny, captions[:few], encoded[:few], "ridge").weight.isfinite().all()
    with pytest.raises(InputError, match="fewer than two images have words that others have not"):
        fit(tiny, [["A dog."]] * IMAGES, encoded, "ridge")
    with pytest.raises(InputError, match="all encodings are the same"):
        fit(tiny, captions, np.zeros_like(encoded), "procrustes")
    with pytest.raises(InputError, match="an encoding is NaN or infinite"):
        fit(tiny, captions, np.full_like(encoded, np.nan), "procrustes")
    with pytest.raises(InputError, match="found 99 images with captions and 100 encodings"):
        fit(tiny, captions[:-1], encoded, "ridge")


def test_an_image_whose_words_all_have_is_left_out(tiny: Limber, captions, encoded: np.ndarray) -> None:
    """Its y would be 0 / 0."""
    shared = [[f"{told[0]} dog"] for told in captions]
    shared[0] = [" dog"]
    assert fit(tiny, shared, encoded, "ridge").weight.isfinite().all()


# As the command does it


@pytest.mark.parametrize(("encoder", "n_tokens"), [("clip", 1), ("nfresnet", 3)])
def test_command(world, folder: Path, tmp_path: Path, capsys, encoder: str, n_tokens: int) -> None:
    arguments = ["--config", str(world.config(encoder)), "--data", str(folder), "--out", str(tmp_path / "out"),
                 "--held-out", str(folder), "--method", "ridge", "--json", "-"]  # fmt: skip
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 0
    assert report["loss"] == pytest.approx(report["held_out"]["right"])  # the same images
    projection = load(world.config(encoder), projection=report["projection"]).projection
    assert projection.manifest["training"]["method"] == "ridge"
    rows = projection.linear.weight.unflatten(0, (n_tokens, -1))
    assert all(torch.equal(row, rows[0]) for row in rows)
    log = json.loads(Path(report["log"]).read_text())
    assert log["strength"] in STRENGTHS


@pytest.mark.parametrize("whiten", [False, True])
def test_training_starts_from_a_projection(world, folder: Path, tmp_path: Path, whiten: bool) -> None:
    """A step of no length leaves the function as it was given, whatever the coordinates it is trained in."""
    config = load_config(world.config("clip"), name="tiny", train_steps=1, batch_size=4, lr=1e-12, whiten=whiten,
                         weight_decay=0.0, zero_stage=0, projection="none")  # fmt: skip
    found = train(config, folder, tmp_path / "ridge", method="ridge")
    run = train(config, folder, tmp_path / "out", init=found.projection)
    first, second = (load(config, projection=path) for path in (found.projection, run.projection))
    encoded = torch.from_numpy(encode(first.encoder, open_dataset(folder), tmp_path / "e")[:].astype(np.float32))
    torch.testing.assert_close(second.projection(encoded), first.projection(encoded), rtol=1e-3, atol=1e-3)
    assert second.projection.manifest["training"]["init"] == first.projection.sha256
    assert second.projection.manifest["training"]["method"] == "gradient"


def test_a_closed_form_starts_from_nothing(world, folder: Path, tmp_path: Path) -> None:
    config = load_config(world.config("clip"), projection="none")
    with pytest.raises(
        InputError, match="method ridge: starts from nothing, from stored encodings, in one go; leave out init"
    ):
        train(config, folder, tmp_path / "out", method="ridge", init=world.projection())
