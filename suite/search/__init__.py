"""The Optuna adapter: sampler, pruning, storage."""
