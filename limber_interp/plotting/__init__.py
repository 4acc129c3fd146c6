"""Figures, drawn from records alone: no figure runs a model."""
