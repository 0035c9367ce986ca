"""The benchmarks run, in short versions, and their figures are consistent. No timing is asserted."""

from __future__ import annotations

import ast
import inspect
import json
import math
import pkgutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from suite.bench import baselines, searches, spin, training
from suite.bench.registry import BENCHMARKS, bench
from suite.data.datasets import search_splits
from suite.data.splits import split_indices
from suite.errors import InputError
from suite.store.files import cache_dir

CPU = torch.device("cpu")


def figures(found: Any) -> dict[str, float]:
    rows = list(found)
    assert all(how for _, _, _, how in rows)  # every figure says how it was obtained
    return {name: value for name, value, _, _ in rows}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_called_without_arguments(name: str) -> None:
    """The registry names functions by text, which no type checker follows."""
    parameters = inspect.signature(pkgutil.resolve_name(BENCHMARKS[name])).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)


def test_an_unknown_benchmark_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"time-to-99"):
        list(bench("nothing"))


def test_the_registry_imports_no_torch() -> None:
    """`bench startup` and an unknown name are answered without it."""
    code = "import sys, suite.bench.registry\nassert not {'torch', 'numpy', 'optuna', 'textual'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_same_net_learns_as_well_in_both_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "IMAGES", 1920)
    monkeypatch.setattr(training, "search_splits", partial(search_splits, limit=1920))
    monkeypatch.setattr(training, "split_indices", lambda labels: (rows[:1920] for rows in split_indices(labels)))
    found = figures(training.train())
    assert found["train.ratio"] > 0 and math.isfinite(found["train.ratio"])
    assert found["train.plain_accuracy"] > 0.8 and found["train.ours_accuracy"] > 0.8


@pytest.mark.slow
def test_features_and_roofline_count_what_they_did() -> None:
    found = figures(training.frozen_features(size=32, images=64))
    assert found["features.ratio"] > 0
    assert found["features.ours"] > 0 and found["features.plain"] > 0


@pytest.mark.slow
def test_heads_are_searched_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_dir()
    found = figures(searches.head_sweep(trials=3, epochs=2, size=32, limit=200, steps=5))
    assert cache_dir() == before
    for side in ("solo", "population"):
        seconds = found[f"head-sweep.{side}"]
        assert seconds > 0
        assert found[f"head-sweep.{side}_ratio"] == pytest.approx(found["head-sweep.plain"] / seconds)


@pytest.mark.slow
def test_spinning_is_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # not handed on: it would decide in place of the bound
    told = "import os; print(os.environ.get('GOMP_SPINCOUNT', 7), flush=True)"
    code = {(spin.BUSY,): "while True: pass", (): told}
    monkeypatch.setattr(spin, "command", lambda *words, module: [sys.executable, "-c", code[words]])
    assert figures(spin.spin((1,), ("200", ""), rounds=1)) == {"spin.200.1": 200, "spin.default.1": 7}
    monkeypatch.setattr(spin, "STEPS", 2)
    assert spin.training_seconds() > 0


def test_the_plain_objective_searches_the_same_space() -> None:
    """The plain objective's space is read from its syntax tree and compared with the experiment's."""
    from suite.bench.workload import SPACE

    tree = ast.parse(Path(baselines.__file__).read_text())
    suggested = {
        call.args[0].value: [ast.literal_eval(arg) for arg in call.args[1:]]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr.startswith("suggest_")
        and isinstance(call.args[0], ast.Constant)
    }
    space = {
        key: list(choices.values) if choices.kind == "choice" else [choices.low, choices.high]
        for key, choices in SPACE.items()
    }
    assert {k: v[0] if isinstance(v[0], list) else v for k, v in suggested.items()} == space


@pytest.mark.slow
def test_bench_prints_json_with_the_machine(suite: Callable[..., Any]) -> None:
    done = suite("bench", "startup", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["machine"]["hardware"] and answer["figures"][0]["name"] == "startup.help"
    unknown = suite("bench", "nothing")
    assert unknown.returncode == 2 and "train" in unknown.stderr and "Traceback" not in unknown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tui", "scale"])
def test_a_benchmark_that_is_stopped_ends_what_it_has_started(start: Callable[..., Any], name: str) -> None:
    running = start("bench", name)
    process, children = psutil.Process(running.pid), []
    while not children and running.poll() is None:
        children = process.children()
    running.signal(signal.SIGTERM)
    assert running.wait() == 143
    _, alive = psutil.wait_procs(children, timeout=10)  # by itself the dashboard would run on
    assert not alive
