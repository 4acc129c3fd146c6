"""Encoders side by side: the same images, prompts and seeds for each, resumable, in one process or many."""

from limber_interp.evaluation.comparison.run import compare as compare
from limber_interp.evaluation.comparison.work import TASKS as TASKS
