"""An experiment with a pretraining on Ray: one connection, and so one cluster, for both."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from suite.store.events import EventReader
from suite.store.study import StudyDir, studies

# Not importorskip: Ray reads its settings as it is imported, and other tests of this process choose them.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

EXPERIMENT = '''
"""A head on a network that is pretrained first."""
from suite.spec import Arm, Experiment, HeadOnly, Pretraining, Recipe

EXPERIMENT = Experiment(
    name="small",
    question="Is Ray still there when the pretraining has ended?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=1, batch_size=32)),
    arms={"head": Arm(backbone="net", strategy=HeadOnly(), weights="experiment", recipe=Recipe(epochs=1))},
    trials=1,
    limit=300,
)
'''


@pytest.fixture
def short() -> Iterator[str]:
    """For Ray's sockets, whose paths must be short."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def workers(study: StudyDir) -> set[int]:
    """The processes that ran its trials."""
    lines = [line for trial in study.trials() for line in EventReader(trial.events).poll()]
    return {line.event.pid for line in lines if line.event.kind == "started"}


@pytest.mark.slow
def test_a_study_goes_on_with_the_workers_of_its_pretraining(
    suite: Callable[..., Any], tmp_path: Path, short: str
) -> None:
    """Ray is not shut down between the two: a process that shuts it down and connects again races with itself."""
    path = tmp_path / "small.py"
    path.write_text(EXPERIMENT)
    done = suite("sweep", path, "--engine", "ray", RAY_ADDRESS="", RAY_TMPDIR=short)
    assert done.returncode == 0, done.stderr
    study, pretraining = sorted(studies(tmp_path / "results"), key=lambda s: s.name != "small")
    assert [s.state for place in (study, pretraining) for s in place.states()] == ["finished", "finished"]
    assert len(workers(study)) == 1
    assert workers(study) == workers(pretraining)
