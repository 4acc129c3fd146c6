"""Training projections: the readers of data, the loss of one batch, and the engine that drives DeepSpeed."""
