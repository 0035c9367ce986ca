"""A search that begins with what an earlier study found."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.errors import InputError
from suite.execution.warm_start import warm_started
from suite.spec import Arm, Experiment, Uniform


def test_the_best_trials_of_the_arm_of_the_same_name_come_first(small, made) -> None:
    plan = warm_started(made(), small.results, small.study.name)
    for name, arm in plan.arms.items():
        own = [s for s in small.study.states() if s.trial.arm == name and s.state == "finished"]
        own.sort(key=lambda s: (-(s.best or 0.0), s.trial.number))
        assert list(arm.first) == [dict(s.trial.params) for s in own[:3]]


def test_a_study_without_use_for_the_arms_is_refused(small, tmp_path: Path) -> None:
    space = {"label_smoothing": Uniform(low=0.0, high=0.2)}
    other = Experiment(name="o", question="?", dataset="mnist", arms={"net": Arm(backbone="net")}, space=space)
    with pytest.raises(InputError, match="label_smoothing"):
        warm_started(other, small.results, small.study.name)
    with pytest.raises(InputError, match="no study 'nonesuch'"):
        warm_started(other, small.results, "nonesuch")
