"""The epochs at which trials are compared and pruned."""

from __future__ import annotations

from suite.spec import Pruning


def rungs(pruning: Pruning | None, epochs: float) -> tuple[float, ...]:
    """Epochs after which a trial of so many may be pruned: first, first * factor, ... below the last."""
    if pruning is None:
        return ()
    found: list[float] = []
    epoch = pruning.first
    while epoch < epochs:
        found.append(epoch)
        epoch *= pruning.factor
    return tuple(found)


def rung_step(epoch: float) -> int:
    """A rung as Optuna knows it, whose steps are whole numbers: hundredths of an epoch."""
    return round(100 * epoch)
