"""What an arm's search asks for, and what Optuna is told of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from suite.errors import InputError
from suite.search.sampler import Search, given, pruner_of, sampler_of
from suite.spec import Arm, Choice, Experiment, LogFloat, Plugin, Recipe, Record, Space
from suite.store.study import StudyDir

LR: Space = {"lr": LogFloat(low=1e-3, high=0.3)}


def experiment(space: Space, **changes: object) -> Experiment:
    arms = {"net": Arm(backbone="net", recipe=Recipe(lr=0.05, batch_size=32))}
    return Experiment(name="e", question="?", dataset="mnist", arms=arms, space=space, **changes)  # type: ignore[arg-type]


def opened(space: Space, **changes: object) -> Search:
    storage = optuna.storages.InMemoryStorage()
    return Search(storage, "e/net", experiment(space, **changes), "net", parallel=False)


def test_the_default_recipe_comes_first_and_nothing_twice() -> None:
    found = [opened(LR).ask(made) for made in range(20)]
    assert found[0] == {"lr": 0.05}
    assert len({params["lr"] for params in found}) == 20


def test_what_an_arm_gives_comes_before_other_points() -> None:
    arm = Arm(
        backbone="net", recipe=Recipe(lr=0.05), first=({"lr": 0.1}, {"recipe.lr": 0.05}, {"lr": 7.0}, {"momentum": 1})
    )
    assert given(arm, LR) == [{"lr": 0.05}, {"lr": 0.1}]
    assert given(Arm(backbone="net", recipe=Recipe(lr=1.0), first=({"lr": 0.1},)), LR) == [{"lr": 0.1}]


def test_a_finite_space_gives_each_combination_once() -> None:
    space: Space = {"batch_size": Choice(values=(16, 32, 64))}
    assert experiment(space, trials=9).quota() == {"net": 3}
    found = [opened(space).ask(made)["batch_size"] for made in range(3)]
    assert found[0] == 32 and sorted(found) == [16, 32, 64]  # type: ignore[type-var]
    assert experiment({}, trials=9).quota() == {"net": 1}


@pytest.mark.parametrize("name", ["TPESampler", "RandomSampler", "QMCSampler"])
def test_samplers_of_optuna_take_the_place_of_ours(name: str) -> None:
    search = opened({**LR, "batch_size": Choice(values=(16, 32))}, sampler=Plugin(name=name))
    for made in range(6):
        params = search.ask(made)
        search.register(f"{made:04d}-0", params)
        search.tell(Record(trial=f"{made:04d}-0", arm="net", state="finished", attempt="a", accuracy=0.5 + made / 100))
    own = [t for t in search.study.get_trials() if "id" in t.user_attrs]
    assert len(own) == 6 and len({json.dumps(t.params) for t in own}) == 6
    assert search.study.best_value == 0.55


@pytest.mark.parametrize("make", [lambda p: sampler_of(p, 0), pruner_of])
def test_plugins_that_optuna_lacks_are_refused_by_name(make: Callable[[Plugin], object]) -> None:
    with pytest.raises(InputError, match="it has: "):
        make(Plugin(name="Nonesuch"))
    with pytest.raises(InputError, match="cannot be made"):
        make(Plugin(name="TPESampler" if make is not pruner_of else "MedianPruner", options={"what": 1}))


def test_a_pruned_trial_has_the_value_of_its_last_short_training() -> None:
    search = opened(LR)
    search.register("0000-a", search.ask(0))
    search.report("0000-a", 1 / 3, 0.9)
    search.report("0000-a", 1 / 3, 0.9)  # repeated after an interruption
    record = Record(
        trial="0000-a", arm="net", state="pruned", attempt="a", rungs=((1 / 3, 0.9),), curve=((1 / 3, 0.9),)
    )
    search.tell(record)
    search.tell(record)
    (trial,) = search.study.get_trials()
    assert (trial.state, trial.value, trial.intermediate_values) == (optuna.trial.TrialState.PRUNED, 0.9, {33: 0.9})


@pytest.mark.slow
def test_a_pruner_of_optuna_takes_the_place_of_ours(search, made, tmp_path: Path) -> None:
    plan = made(trials=6, pruner=Plugin(name="MedianPruner", options={"n_startup_trials": 1}))
    study: StudyDir = search(plan, tmp_path)
    states = study.states()
    assert all(state.trial.rungs == (1.0, 2.0) and state.trial.stages == () for state in states)
    pruned = [state for state in states if state.state == "pruned"]
    assert pruned and all("pruner" in (state.reason or "") for state in pruned)
    with sqlite3.connect(study.database) as connection:
        told = dict(connection.execute("select state, count(*) from trials group by state").fetchall())
    assert told == {"COMPLETE": 6 - len(pruned), "PRUNED": len(pruned)}
