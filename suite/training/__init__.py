"""The training loop, one trial from set-up to record, checkpoints, stacks of trials."""
