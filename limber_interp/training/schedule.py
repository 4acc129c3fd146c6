"""The learning rate of every step."""

from limber_interp.config import LimberConfig


def rate(config: LimberConfig, step: int) -> float:
    """The learning rate with which the step of this number, counted from 0, is taken.

    It rises linearly from `min_lr`, that of step 0, to `lr` at step `warmup_num_steps`, and then stays or, where
    `lr_decay_iters` is given, falls linearly to `min_lr` again, which it has from that step on. These are the curves
    that DeepSpeed's WarmupLR and WarmupDecayLR describe; used as they are, they begin one step late, so that the first
    two steps are both taken with `min_lr`.
    """
    if step < config.warmup_num_steps:
        share = step / config.warmup_num_steps
    elif config.lr_decay_iters is None:
        share = 1.0
    else:
        span = max(1, config.lr_decay_iters - config.warmup_num_steps)
        share = max(0.0, (config.lr_decay_iters - step) / span)
    return config.min_lr + share * (config.lr - config.min_lr)
