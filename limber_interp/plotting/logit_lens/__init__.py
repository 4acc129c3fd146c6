"""Figures of a logit lens: one image's table, a target on the patches, a target's rank by layer."""

from limber_interp.plotting.logit_lens.sheet import figure as figure
from limber_interp.plotting.logit_lens.targets import patches as patches
from limber_interp.plotting.logit_lens.targets import ranks as ranks
