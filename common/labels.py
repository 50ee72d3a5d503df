"""Labels of tokens, shared by the data side that writes them and the losses that read them."""

IGNORED = -100
"""Not a token to predict: padding in the lists of masked tokens."""
