"""One small study, searched and finally evaluated, that all tests of figures look at. Nobody may change it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from suite.evaluation import final
from suite.execution.controller import Stop
from suite.execution.plan import Options
from suite.execution.sweep import sweep
from suite.hardware import device
from suite.spec import Arm, Caps, Choice, Experiment, HeadOnly, LogFloat, Pretraining, Pruning, Recipe
from suite.store.study import StudyDir

LIMIT = 300  # images of each split
Made = Callable[..., Experiment]


@dataclass
class Opened:
    """Files of the test images that this process has opened since `watch` was set."""

    paths: list[str] = field(default_factory=list)
    watch: bool = False


@dataclass(frozen=True)
class Small:
    results: Path
    study: StudyDir
    outcome: dict[str, Any]
    opened_by_search: list[str]
    opened_by_evaluation: list[str]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Several tests at once share the cores: more threads than that only wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def made() -> Made:
    def make(trials: int = 6, caps: Caps | None = None, **changes: Any) -> Experiment:
        recipe = Recipe(epochs=3, batch_size=32, lr=0.05)
        return Experiment(
            name="small",
            question="Does <b>the</b> machinery hold | or not?",
            dataset="mnist",
            pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=1, lr=0.05)),
            arms={
                "net-scratch": Arm(backbone="net", recipe=recipe),
                "net-head": Arm(backbone="net", strategy=HeadOnly(), weights="experiment", recipe=recipe),
            },
            space={"lr": LogFloat(low=1e-2, high=0.2), "batch_size": Choice(values=(16, 32))},
            pruning=Pruning(first=1, factor=2),
            trials=trials,
            limit=LIMIT,
            caps=caps,
            **changes,
        )

    return make


def searched(experiment: Experiment, results: Path) -> StudyDir:
    for _ in sweep(experiment, results, options=Options(device="cpu", command="the search"), stop=Stop()):
        pass
    return StudyDir(results, experiment.name)


@pytest.fixture(scope="session")
def search() -> Callable[[Experiment, Path], StudyDir]:
    return searched


@pytest.fixture(scope="session")
def opened() -> Opened:
    """Every `open` of this process goes by here, whatever code it comes from."""
    seen = Opened()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if seen.watch and event == "open" and "t10k" in str(arguments[0]):
            seen.paths.append(str(arguments[0]))

    sys.addaudithook(hook)
    return seen


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, made: Made, opened: Opened) -> Small:
    results = tmp_path_factory.mktemp("figures") / "results"
    opened.watch = True
    study = searched(made(), results)
    by_search, opened.paths = opened.paths, []
    plan = final.plan(results, study, top=1, seeds=2, place="cpu", command="the evaluation")
    for _ in final.train(plan, stop=Stop()):
        pass
    by_search += opened.paths
    opened.paths = []
    outcome = final.judge(plan)
    opened.watch = False
    return Small(results, study, outcome, by_search, opened.paths)
