"""Several threads on one model: each gets what it would get alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from limber_interp.config import load_config
from limber_interp.models.encoders import load_encoder
from limber_interp.models.limber import Limber
from limber_interp.probes import logit_lens
from limber_interp.threads import drawing, using

N = 4
TIMES = 3


def together(works):
    """Each work several times over, all in threads of their own that begin at the same moment."""
    barrier = threading.Barrier(len(works))

    def repeated(work):
        barrier.wait()
        return [work() for _ in range(TIMES)]

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(repeated, work) for work in works]]


def test_lenses_of_one_model_in_threads(tiny: Limber, images):
    """Each thread's hooks fired in the others' forward passes: right shapes, and every result wrong."""
    shown = [images[0], images[1], images[2], images[0].rotate(90)]
    works = [lambda i=i: logit_lens(tiny, shown[i], controls="none").to_json() for i in range(N)]
    expected = [work() for work in works]
    assert len(set(expected)) == N
    assert together(works) == [[one] * TIMES for one in expected]


def test_hooks_in_one_thread_leave_the_others_alone(tiny: Limber, images):
    def hooked(factor):
        def hook(residual, hook):
            return residual * factor

        with tiny.lm.hooks([("blocks.0.hook_resid_post", hook)]):
            ids = tiny.generate([images[0], "A picture of"], 5)
        logits = tiny.run_with_hooks([images[0], "A"], [("blocks.1.hook_mlp_out", hook)])
        residual = tiny.run_with_cache([images[0], "A"])[1]["blocks.1.hook_resid_post"]
        return ids, logits.tolist(), residual.tolist(), tiny.caption(images[1], temperature=1.0, max_new_tokens=5)

    works = [lambda i=i: hooked(float(-3 * i)) for i in range(N)]
    expected = [work() for work in works]
    assert len({str(one[0]) for one in expected}) > 1
    assert together(works) == [[one] * TIMES for one in expected]
    tiny.lm.reset_hooks()
    assert not tiny.lm.blocks[0].hook_resid_post.fwd_hooks


@pytest.mark.parametrize("name", ["clip", "nfresnet"])
def test_random_encoders_in_threads(world, name):
    """Drawn from torch's one global generator, that each thread had seeded for itself."""
    configs = [
        load_config(world.config(name)).model_copy(update={"pretrained_img_encoder": False, "seed": seed})
        for seed in range(N)
    ]
    works = [lambda config=config: load_encoder(config).sha256 for config in configs]
    state = torch.get_rng_state()
    expected = [work() for work in works]
    assert len(set(expected)) == N
    assert together(works) == [[one] * TIMES for one in expected]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_thread_may_ask_again_and_others_wait(tiny: Limber):
    inside, order = threading.Event(), []

    def other():
        inside.wait()
        with using(tiny.lm), drawing():
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with using(tiny.lm), using(tiny.lm), drawing(), drawing():
        inside.set()
        thread.join(0.2)  # it would be done by now, were it not for the lock; slowness only makes the test easier
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


def test_a_backward_pass_that_computes_again_does_not_wait_for_itself(tiny: Limber, images):
    """Checkpointed activations are computed again in a thread of autograd's, on a GPU, while the first one waits."""
    residual = tiny.embed([images[0], "A"]).residual.clone().requires_grad_()

    def loss(residual):
        return tiny.lm(residual, start_at_layer=0)[:, -1].logsumexp(-1).sum()

    with tiny.lm.hooks([("blocks.0.hook_resid_post", lambda values, hook: values * 2)]):
        (expected,) = torch.autograd.grad(loss(residual), residual)
        again = torch.utils.checkpoint.checkpoint(loss, residual, use_reentrant=False)
        with ThreadPoolExecutor(1) as pool:
            (found,) = pool.submit(torch.autograd.grad, again, residual).result(timeout=60)
    torch.testing.assert_close(found, expected)
