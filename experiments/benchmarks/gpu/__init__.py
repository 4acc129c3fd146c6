"""Everything that has to be known of a GPU, in one run of stages: whether the results are right there, and how fast."""
