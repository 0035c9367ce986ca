"""Studies whose files have the long names of parameters ("recipe.lr") go on under the canonical names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from suite.errors import InputError
from suite.execution.options import Options
from suite.execution.plan import check
from suite.ranking.leaderboard import row
from suite.reporting.importances import importances
from suite.search.sampler import distribution
from suite.spec import Arm, Choice, Experiment, LogFloat, Recipe, Trial, Uniform
from suite.store.files import file_sha256, write_model
from suite.store.study import StudyDir

Search = Callable[[Experiment, Path], StudyDir]
EXPERIMENT = Experiment(
    name="older",
    question="q",
    dataset="mnist",
    arms={"a": Arm(backbone="net", recipe=Recipe(epochs=1, batch_size=16))},
    space={"lr": LogFloat(low=1e-2, high=0.2), "momentum": Uniform(low=0.5, high=0.9)},
    trials=3,
    pruning=None,
    limit=60,
)


def make_old(study: StudyDir) -> dict[str, str]:
    """Rewrite a study as an older version would have written it; returns the new trial ids by the old ones."""
    path = study.path / "study.json"
    content = json.loads(path.read_text())
    content["experiment"]["space"] = {f"recipe.{k}": v for k, v in content["experiment"]["space"].items()}
    path.write_text(json.dumps(content))
    study.database.unlink()
    memory = optuna.create_study(
        storage=f"sqlite:///{study.database}", study_name=f"{study.name}/a", direction="maximize"
    )
    space = {f"recipe.{name}": distribution(choices) for name, choices in EXPERIMENT.space.items()}
    ids: dict[str, str] = {}
    for state in study.states():
        params = {f"recipe.{name}": value for name, value in state.trial.params.items()}
        old = Trial.model_validate(dict(state.trial) | {"params": params})
        ids[state.id] = old.id
        place = study.trial(old.id)
        study.trial(state.id).path.rename(place.path)
        write_model(place.path / "trial.json", old)
        assert state.record is not None
        write_model(place.path / "result.json", state.record.model_copy(update={"trial": old.id}))
        sums = "".join(f"{file_sha256(place.path / name)}  {name}\n" for name in place.sums())
        (place.path / "SHA256SUMS").write_text(sums)
        memory.add_trial(
            create_trial(params={**params}, distributions=space, value=state.best, user_attrs={"id": old.id})
        )
    return ids


@pytest.mark.slow
def test_an_older_study_resumes_under_canonical_names(search: Search, tmp_path: Path) -> None:
    """Its trials keep their names and files, the sampler learns from them, and tables show one column for both."""
    from suite.execution.stop import Stop
    from suite.execution.sweep import sweep

    study = search(EXPERIMENT, tmp_path)
    ids = make_old(study)
    before = {path: path.read_bytes() for path in study.trials_path.rglob("*.json")}
    more = EXPERIMENT.model_copy(update={"trials": 7})
    options = Options(device="cpu", resume=True)
    for _ in range(2):  # the second time nothing is left to do, and nothing is written anew
        last = [*sweep(more, tmp_path, options=options, stop=Stop())][-1]
        assert (last.state, last.finished) == ("done", 7)
    assert "did not agree" not in last.message
    assert {path: path.read_bytes() for path in before} == before
    states = study.states()
    assert [s.id for s in states[:3]] == [*ids.values()]
    assert {frozenset(s.trial.params) for s in states[3:]} == {frozenset({"lr", "momentum"})}
    memory = optuna.load_study(storage=f"sqlite:///{study.database}", study_name=f"{study.name}/a")
    assert [t.user_attrs["id"] for t in memory.trials] == [s.id for s in states]
    assert [t.params for t in memory.trials] == [s.trial.canonical_params for s in states]
    assert {frozenset(row("older", state).tuned) for state in states} == {frozenset({"lr", "momentum"})}
    if len({s.best for s in states}) > 1:  # else there is nothing to explain
        assert set(importances(more, states)["a"]) == {"lr", "momentum"}


@pytest.mark.parametrize("name", ["batch_size", "recipe.batch_size"])
def test_a_searched_batch_size_is_checked_in_any_spelling(name: str, tmp_path: Path) -> None:
    """With the long name it escaped the check, and the trials failed instead."""
    space = {name: Choice(values=(16, 4096))}
    experiment = Experiment.model_validate(dict(EXPERIMENT) | {"space": space})
    with pytest.raises(InputError, match="Batches of 4096"):
        check(experiment, tmp_path, Options(device="cpu"))
