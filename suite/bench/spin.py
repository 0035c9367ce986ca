"""Benchmark of how long OpenMP threads spin while they wait, with other processes that keep cores busy.

Every training runs in a process of its own, since libgomp reads its environment as it is loaded.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence

from suite.bench.measure import ROUNDS, Figure
from suite.hardware.openmp import CHOICES
from suite.interpreter import command

BOUNDS = ("0", "200", "2000", "20000", "")  # of GOMP_SPINCOUNT; '': unset, which is 300,000

STEPS, WARM_UP, BATCH = 60, 5, 64

BUSY = "busy"  # asks this module, run as a program, to keep a core busy; without it, it trains


def spin(
    neighbours: Sequence[int] = (0, 1, 2), bounds: Sequence[str] = BOUNDS, rounds: int = ROUNDS
) -> Iterator[Figure]:
    """Seconds of a small training of `cnn` on all cores, by spin count and number of busy processes beside it."""
    from suite.data.fetch import fetch

    fetch("mnist")
    for count in neighbours:
        seconds: dict[str, list[float]] = {bound: [] for bound in bounds}
        with _busy(count):
            for _ in range(rounds):
                for bound in bounds:
                    seconds[bound].append(_in_a_process(bound))
        for bound, found in seconds.items():
            how = f"{STEPS} steps of cnn, {count} busy beside, median of {rounds}, {min(found):.2f} to {max(found):.2f}"
            yield f"spin.{bound or 'default'}.{count}", statistics.median(found), "s", how


def training_seconds() -> float:
    """Seconds of `STEPS` steps of `cnn` in float32 after a warm-up, in this process."""
    import torch

    from suite.bench.measure import timed
    from suite.bench.workload import examples, mnist_model, one_epoch
    from suite.data.datasets import search_splits
    from suite.hardware import device, memory
    from suite.spec import Augment, Recipe
    from suite.training import state
    from suite.training.augment import training_preparer

    torch.set_num_threads(device.cores())
    memory.keep_memory()
    cpu, recipe = torch.device("cpu"), Recipe(epochs=1, batch_size=BATCH)
    train = search_splits("mnist").train
    model, expects = mnist_model("cnn", cpu, 0)
    run, prepare = state.begin(model, recipe, cpu, torch.float32), training_preparer(expects, Augment(), cpu)
    one_epoch(run, examples(train, cpu, WARM_UP * BATCH), recipe, prepare)()
    return timed(one_epoch(run, examples(train, cpu, STEPS * BATCH), recipe, prepare))


def _in_a_process(bound: str) -> float:
    """`training_seconds` in a new process with this spin count; unset where it is empty."""
    environment = {name: value for name, value in os.environ.items() if name not in (*CHOICES, "OMP_NUM_THREADS")}
    if bound:
        environment["GOMP_SPINCOUNT"] = bound
    training = command(module="suite.bench.spin")
    return float(subprocess.run(training, env=environment, stdout=subprocess.PIPE, check=True).stdout)


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Context in which `count` processes keep a core busy each."""
    others = [subprocess.Popen(command(BUSY, module="suite.bench.spin")) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    while sys.argv[1:] == [BUSY]:
        pass
    sys.stdout.write(f"{training_seconds()}\n")
