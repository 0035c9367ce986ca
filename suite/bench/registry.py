"""The benchmarks known by name, and the machine that they run on.

A benchmark is a function without required arguments that yields `Figure` tuples. A new one is a function in one of
the modules of this package and a line in `BENCHMARKS`.
"""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Iterator
from typing import Any

from suite.bench.measure import Figure
from suite.errors import InputError

# Name -> "module:function". A module is imported when its benchmark runs: most of them import torch.
BENCHMARKS: dict[str, str] = {
    "startup": "suite.bench.micro:startup",
    "leaderboard": "suite.bench.micro:leaderboard",
    "scale": "suite.bench.micro:scale",
    "tui": "suite.bench.micro:tui",
    "train": "suite.bench.training:train",
    "time-to-99": "suite.bench.training:time_to_99",
    "finetune": "suite.bench.training:finetune",
    "features": "suite.bench.training:frozen_features",
    "head-sweep": "suite.bench.searches:head_sweep",
    "sweep": "suite.bench.searches:search",
    "search": "suite.bench.search_replay:search",
    "population": "suite.bench.searches:population",
    "pictures": "suite.bench.pictures:pictures",
    "export": "suite.bench.exports:exports",
    "roofline": "suite.bench.training:roofline",
    "spin": "suite.bench.spin:spin",
}


def bench(name: str | None) -> Iterator[Figure]:
    """Run one benchmark, or all of them where `name` is None. Raises InputError where the name is unknown."""
    if name is not None and name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; there is: {', '.join(BENCHMARKS)}.")
    for each in [name] if name else BENCHMARKS:
        yield from pkgutil.resolve_name(BENCHMARKS[each])()


def machine() -> dict[str, Any]:
    """`hardware`, `date` and `torch` (its version), to be kept beside the figures."""
    from suite.hardware import device
    from suite.store.provenance import packages

    hardware = device.hardware(device.pick("auto"))
    return {"hardware": hardware, "date": time.strftime("%Y-%m-%d"), "torch": packages()["torch"]}
