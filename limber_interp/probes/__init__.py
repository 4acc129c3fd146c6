"""What can be read from an image's positions. Each probe takes a model and images, and gives a record."""

from limber_interp.probes.logit_lens import logit_lens as logit_lens
from limber_interp.probes.nearest_tokens import nearest_tokens as nearest_tokens
