"""The training loop and what keeps it alive: settings, launcher, optimizer, checkpoints, logging."""
