"""Begin a search with what an earlier study found."""

from __future__ import annotations

from pathlib import Path

from suite.errors import InputError
from suite.spec import Experiment, Params
from suite.store.study import open_study
from suite.store.trial import TrialState

BEST = 3  # trials of the earlier study that each arm begins with


def warm_started(experiment: Experiment, results: Path, study: str) -> Experiment:
    """The experiment, whose arms try the best parameters of an earlier study after their own recipe.

    An arm takes them from the arm of its name in that study, else from all arms, of trials with a parameter for each of
    its ranges. Raises InputError where there is no such study, or nothing in it that an arm can use.
    """
    finished = [s for s in open_study(results, study).states() if s.state == "finished" and s.best is not None]
    finished.sort(key=lambda s: (-(s.best or 0.0), s.trial.number))
    arms = {}
    for name, arm in experiment.arms.items():
        names = experiment.space_of(name).keys()
        usable = [s for s in finished if names and names <= s.trial.canonical_params.keys()]
        own = [s for s in usable if s.trial.arm == name] or usable
        arms[name] = arm.model_copy(update={"first": (*arm.first, *_params(own, list(names)))})
    if all(arm.first == experiment.arms[name].first for name, arm in arms.items()):
        wanted = ", ".join(sorted({path for name in arms for path in experiment.space_of(name)})) or "nothing"
        raise InputError(
            f"Study '{study}' has no finished trial that an arm of '{experiment.name}' can begin with: these search "
            f"{wanted}. Leave out --warm-start, or name another study."
        )
    return experiment.model_copy(update={"arms": arms})


def _params(states: list[TrialState], names: list[str]) -> list[Params]:
    found: list[Params] = []
    for state in states:
        params = {name: state.trial.canonical_params[name] for name in names}
        if params not in found:
            found.append(params)
    return found[:BEST]
