"""Shared by the fault tests: a small real study, a quick way to start the command line, and the promise to check.

Starting Python with torch and optuna costs seconds, and these tests start some hundred processes. So one process
imports everything once, and every command line is a fork of it, with a process group, files and signals of its own:
the same code from `main()` on, killed as any other. tests/test_sweep.py starts them the slow way.
"""

# ruff: noqa: T201

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from suite import backbones, data, train
from suite.augment import image_preparer
from suite.checkpoint import SLOTS
from suite.runner import Examples
from suite.spec import Augment
from suite.store import EventReader, StudyDir, file_sha256
from suite.weights import read_tensors

TRIALS = 6
EXPERIMENT = '''
"""A small question with everything that a checkpoint has to carry: averaged weights, augmentation, schedules."""
from suite.spec import Arm, Augment, Choice, Experiment, LogFloat, Pruning, Recipe

EXPERIMENT = Experiment(
    name="small",
    question="Is anything lost?",
    dataset="mnist",
    arms={
        "sgd": Arm(backbone="net", recipe=Recipe(epochs=EPOCHS, batch_size=32, lr=0.05, schedule="cosine", ema=0.9,
                                                 augment=Augment(shift=2.0), precision="fp32")),
        "adam": Arm(backbone="net", recipe=Recipe(epochs=EPOCHS, batch_size=32, optimizer="adamw", lr=0.01,
                                                  schedule="onecycle", precision="fp32")),
    },
    space={"lr": LogFloat(low=1e-3, high=0.1), "batch_size": Choice(values=(16, 32))},
    pruning=Pruning(first=2, factor=2),
    trials=6,
    limit=300,
)
'''

ZYGOTE = """
import json, os, signal, sys, traceback
import suite.cli, suite.leaderboard, suite.show, suite.sweep
from suite import data
data._training("mnist")
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if os.fork():
        continue
    pid = os.fork()  # this process keeps it: it says the pid, and then how it ended
    if pid:
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        with open(asked["rc"] + ".tmp", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        os.rename(asked["rc"] + ".tmp", asked["rc"])
        os._exit(0)
    os.setsid()
    os.sched_setaffinity(0, {asked["core"]})  # one thread a process: short waits on a busy machine
    os.chdir(asked["cwd"])
    os.environ.update(asked["env"])
    for number, path in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(path, os.O_WRONLY * (number > 0) | os.O_CREAT, 0o644), number)
    sys.argv = ["mnist-suite", *asked["argv"]]
    code = 1
    try:
        suite.cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        with open(asked["rc"] + ".trace", "w") as file:  # standard error may be what has gone
            traceback.print_exc(file=file)
    sys.stdout.flush()
    os._exit(code)
"""


@dataclass
class Running:
    """One command line at work."""

    pid: int
    files: Path  # without suffix

    def poll(self) -> int | None:
        rc = Path(f"{self.files}.rc")
        return int(rc.read_text()) if rc.exists() else None

    def wait(self, seconds: float = 120) -> int:
        wait_for(lambda: self.poll() is not None, seconds)
        code = self.poll()
        assert code is not None
        return code

    def signal(self, number: int, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    @property
    def errors(self) -> str:
        return Path(f"{self.files}.err").read_text(errors="replace")

    @property
    def output(self) -> str:
        return Path(f"{self.files}.out").read_text(errors="replace")


class Starter:
    """Starts command lines by forking a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.cores = sorted(os.sched_getaffinity(0))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MNIST_SUITE_CHECKPOINT_SECONDS": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # its forks' may be one, and Python asks only once whether it can seek
            text=True,
            env=environment,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, *arguments: object, stderr: Path | None = None, **environment: str) -> Running:
        self.number += 1
        files = self.folder / f"{os.getpid()}-{self.number}"
        asked = {
            "argv": [str(a) for a in arguments],
            "cwd": str(self.folder),
            "env": environment,
            "core": self.cores[self.number % len(self.cores)],
            **{kind: f"{files}.{kind}" for kind in ("out", "err", "rc")},
        }
        if stderr is not None:
            asked["err"] = str(stderr)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Running(int(self._line()), files)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("commands"))
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "small.py"
    path.write_text(EXPERIMENT.replace("EPOCHS", "12"))
    return path


@pytest.fixture
def seed() -> int:
    """Of all that is random in a test; MNIST_SUITE_FAULT_SEED repeats it."""
    chosen = int(os.environ.get("MNIST_SUITE_FAULT_SEED", random.SystemRandom().randrange(10**6)))
    print(f"MNIST_SUITE_FAULT_SEED={chosen}")
    return chosen


@dataclass
class Figures:
    """What a test did, for the closing note: appended to $MNIST_SUITE_FAULT_LOG, a line a test."""

    test: str
    faults: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    identical: int = 0  # resumed studies, bit for bit the uninterrupted one

    def fault(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    found = Figures(request.node.name)
    yield found
    print(found)
    if path := os.environ.get("MNIST_SUITE_FAULT_LOG"):
        with open(path, "a") as file:
            file.write(json.dumps(vars(found)) + "\n")


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


Print = dict[str, tuple[Any, ...]]


def fingerprint(directory: StudyDir) -> Print:
    """All of a study that must not depend on what befell it: down to the hash of the weights."""
    found: Print = {}
    for state in directory.states():
        record = state.record
        assert record is not None
        found[state.id] = (record.state, record.accuracy, record.loss, record.curve, record.steps, record.reason,
                           record.artifact_sha256, tuple(sorted(state.trial.params.items())))  # fmt: skip
    return found


@pytest.fixture(scope="session")
def reference(start: Starter, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Print:
    """The study as it comes out when nothing happens to it."""
    results = tmp_path_factory.mktemp("reference")
    run = start("sweep", experiment, "--results", results)
    assert run.wait() == 0, run.errors
    directory = StudyDir(results, "small")
    check_promise(directory)
    found = fingerprint(directory)
    assert {state for state, *_ in found.values()} == {"finished", "pruned"}
    return found


def check_promise(directory: StudyDir, trials: int = TRIALS, *, logs: bool = True) -> None:
    """From the files alone: exactly so many trials, none lost, none twice, every figure true, every model loads."""
    states = directory.states()
    assert [s.trial.number for s in states] == list(range(trials))
    assert len(directory.trials()) == trials
    status = directory.status()
    assert status is not None
    assert status.state == "done", status
    assert (status.finished + status.pruned + status.failed, status.planned) == (trials, trials)
    if directory.database.exists():
        with contextlib.closing(sqlite3.connect(directory.database)) as database:
            rows = database.execute(
                "select t.state, json_extract(a.value_json, '$') from trials t left join trial_user_attributes a "
                "on a.trial_id = t.trial_id and a.key = 'id'"
            ).fetchall()
        told = [trial_id for state, trial_id in rows if state in ("COMPLETE", "PRUNED")]
        assert len(told) == len(set(told))
        assert {i for s, i in rows if s == "COMPLETE"} == {s.id for s in states if s.state == "finished"}
        assert not {s for s, _ in rows} & {"RUNNING", "WAITING"}
    splits = data.search_splits("mnist", limit=300)
    validation = Examples(torch.from_numpy(splits.validation.images), torch.from_numpy(splits.validation.labels))
    for state in states:
        record, place = state.record, directory.trial(state.id)
        assert record is not None
        assert record.trial == state.id
        left = {path.name for path in place.path.iterdir()}
        assert not left & {"checkpoint.json", *SLOTS}
        assert not [name for name in left if name.endswith(".tmp")]
        events = [line.event for line in EventReader(place.events).poll()]
        evaluated = {(e.epoch, e.accuracy) for e in events if e.kind == "evaluated"}
        assert not logs or set(record.curve) <= evaluated
        assert [epoch for epoch, _ in record.curve] == list(range(1, len(record.curve) + 1))
        assert place.best.exists() == (record.state == "finished")
        if record.state == "finished":
            assert record.accuracy == max(accuracy for _, accuracy in record.curve)
            assert file_sha256(place.best) == record.artifact_sha256
            model = backbones.build("net", classes=10, channels=1, size=28, seed=0)
            model.load_state_dict(read_tensors(place.best))
            expects = backbones.Preprocess(1, 28, splits.info.mean, splits.info.std, "none")
            prepare = image_preparer(expects, Augment(), torch.device("cpu"))
            scores = train.evaluate(model, validation, prepare, torch.device("cpu"), torch.float32)
            assert scores.accuracy == record.accuracy


def pids(directory: StudyDir) -> set[int]:
    """Processes that have run trials of this study."""
    return {
        line.event.pid
        for trial in directory.trials()
        for line in EventReader(trial.events).poll()
        if line.event.kind == "started"
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="session")
def faults() -> Any:
    """This module, for tests: with `importlib` as import mode there is no package to import it from."""
    return sys.modules[__name__]
