"""The rungs of successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943): epochs after which trials end."""

from __future__ import annotations

from suite.spec import Pruning


def rungs(pruning: Pruning | None, epochs: float) -> tuple[float, ...]:
    """Epochs after which a trial of `epochs` epochs is compared with others: first, first * factor, and so on below
    `epochs`.

    Rungs that Optuna could not tell apart (see `rung_step`) are merged into the latest of them.
    """
    if pruning is None:
        return ()
    found: dict[int, float] = {}
    epoch = pruning.first
    while epoch < epochs:
        found[rung_step(epoch)] = epoch
        epoch *= pruning.factor
    return tuple(found.values())


def rung_step(epoch: float) -> int:
    """The step under which a rung is reported to Optuna, whose steps are integers: hundredths of an epoch."""
    return round(100 * epoch)
