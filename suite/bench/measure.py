"""Timing of two alternatives in turn, in one run.

Absolute figures of different runs are not comparable on a machine with other load. Ratios of neighbouring
measurements are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROUNDS = 3  # of each alternative, in turn; the median is reported

Figure = tuple[str, float, str, str]  # name, value, unit, how it was obtained


def synchronize(device: torch.device | None) -> None:
    """Wait until the device has finished all queued work."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Seconds that `work` takes, with the work that it queues on the device."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def in_turn(
    alternatives: dict[str, Callable[[], object]], device: torch.device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds of each alternative in each round. A warm-up round comes first and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(rounds + 1):
        for name, work in alternatives.items():
            seconds = timed(work, device)
            if number:
                found[name].append(seconds)
    return found


def ratio(name: str, plain_seconds: list[float], our_seconds: list[float]) -> Figure:
    """The figure `name`.ratio: the median over rounds of the plain alternative's seconds over ours."""
    pairs = [plain / ours for plain, ours in zip(plain_seconds, our_seconds, strict=True)]
    return f"{name}.ratio", statistics.median(pairs), "x", f"pair by pair, {min(pairs):.2f} to {max(pairs):.2f}"
