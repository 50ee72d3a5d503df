"""Training objectives: pure functions of tensors that return scalars, one file an idea."""
