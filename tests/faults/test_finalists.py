"""A stop and kill -9 while finalists are trained: nothing is lost, and the outcome is the same bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from suite.store.study import StudyDir, finalists_of, repeats

EXPERIMENT = '''
"""One arm, whose two trials are so close that both are finalists."""
from suite.spec import Arm, Choice, Experiment, Recipe

EXPERIMENT = Experiment(
    name="close",
    question="Which is better?",
    dataset="mnist",
    arms={"sgd": Arm(backbone="net", recipe=Recipe(epochs=4, batch_size=32, lr=0.05, precision="fp32"))},
    space={"lr": Choice(values=(0.05, 0.051, 0.052))},
    trials=3,
    pruning=None,
    limit=300,
)
'''


@pytest.mark.slow
def test_finalists_are_stopped_and_killed(start, tmp_path: Path, seed: int, figures, faults) -> None:
    chance = random.Random(seed)
    experiment = tmp_path / "close.py"
    experiment.write_text(EXPERIMENT)
    searched = start("sweep", experiment, "--results", tmp_path / "killed")
    assert searched.wait() == 0, searched.errors
    assert "fresh seeds: mnist-suite sweep --study close --resume --finalists 3" in searched.output
    shutil.copytree(tmp_path / "killed", tmp_path / "calm")
    study, calm = (StudyDir(tmp_path / name, "close") for name in ("killed", "calm"))
    command = ("sweep", experiment, "--resume", "--finalists", 2, "--json", "--results")

    undisturbed = start(*command, tmp_path / "calm")
    assert undisturbed.wait() == 0, undisturbed.errors
    for kill in (False, True, True, True):
        run = start(*command, tmp_path / "killed")
        before = faults.events_of(finalists_of(study).path)
        faults.wait_for(lambda: run.poll() is not None or faults.events_of(finalists_of(study).path) > before)  # noqa: B023
        if kill:
            time.sleep(chance.uniform(0, 0.3))
            run.signal(signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL
            figures.fault("controller")
        else:
            shown, asked = (start(what, "close", "--results", tmp_path / "killed") for what in ("status", "stop"))
            assert shown.wait() == asked.wait() == 0, shown.errors + asked.errors
            assert "3/3 trials" in shown.output and "finalists running: " in shown.output
            assert run.wait() == 143, run.errors
            assert "Continue with the same command" in run.errors
        assert repeats(study) == []  # what is not complete decides nothing
    last = start(*command, tmp_path / "killed")
    assert last.wait() == 0, last.errors

    assert faults.fingerprint(study) == faults.fingerprint(calm)
    found = faults.fingerprint(finalists_of(study))
    assert found == faults.fingerprint(finalists_of(calm))
    figures.resumed, figures.identical = 1, 1
    assert len(found) in (6, 9)  # three seeds of the finalists and of the default recipe
    for state in repeats(study):
        faults.check_trial(finalists_of(study), state, logs=True)
    (one,), (other,) = (json.loads(run.output)["found"] for run in (last, undisturbed))
    assert one["finalists"]["trials"] == len(found)
    assert [one[key] for key in ("winner", "fresh", "over_default")] == [
        other[key] for key in ("winner", "fresh", "over_default")
    ]
