"""Equality with tensors recorded from the official code: recorded cases, how each family computes them here, and the comparison."""
