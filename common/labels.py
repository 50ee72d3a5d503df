"""Marks in integer tensors, shared by the data side that writes them and the models that read them."""

IGNORED = -100
"""Not a token to predict: padding in the lists of masked tokens."""

HOLE = -1
"""Where a row of packed texts has no token."""
NO_MATCHING = "no_matching"
"""Key of the batches of a step without image-text matching. An empty tensor: that it is there says everything, and no device is asked."""
