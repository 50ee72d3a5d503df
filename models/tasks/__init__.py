"""A task is a model with its losses and predictions; it knows nothing of ranks or files."""
