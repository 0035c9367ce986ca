"""Shared by the fault tests: a small real study, and the promise to check."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from suite.spec import Record
from suite.store.events import EventReader
from suite.store.files import file_sha256
from suite.store.study import StudyDir
from suite.store.trial import TrialState

PATIENCE = 500.0  # seconds; a wait that is met ends at once, and the machine may be busy with other things
HERE = Path(__file__).parent
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

KINDS = '''
"""One trial of each way to train, so that each is resumed."""
from suite.spec import Arm, Augment, Experiment, HeadOnly, LpFt, Mlp, Partial, Pretraining, Recipe

RECIPE = Recipe(epochs=5, batch_size=32, lr=0.02, precision="fp32")
EXPERIMENT = Experiment(
    name="kinds",
    question="Is anything lost, whatever is trained?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=2, batch_size=32, lr=0.05)),
    arms={
        "lp-ft": Arm(backbone="net", strategy=LpFt(probe_epochs=4), weights="experiment",
                     recipe=RECIPE.model_copy(update={"ema": 0.9, "clip_norm": 1.0, "schedule": "cosine",
                                                      "augment": Augment(shift=2.0, rotate=10.0, erase=0.2)})),
        "linear": Arm(backbone="net", strategy=HeadOnly(), weights="experiment", recipe=RECIPE),
        "mlp": Arm(backbone="net", strategy=HeadOnly(head=Mlp(hidden=32)), weights="experiment",
                   recipe=RECIPE.model_copy(update={"optimizer": "adamw", "lr": 0.003})),
        "partial": Arm(backbone="net", strategy=Partial(blocks=1), weights="experiment", recipe=RECIPE),
        "norms": Arm(backbone="lean-s", recipe=RECIPE.model_copy(update={"epochs": 2, "ema": 0.8})),
        "bf16": Arm(backbone="net", recipe=RECIPE.model_copy(update={"precision": "bf16", "label_smoothing": 0.1})),
    },
    trials=6,
    pruning=None,
    limit=300,
)
'''


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(3 * PATIENCE))


@pytest.fixture(scope="session")
def start(starter: Callable[..., Any]) -> Callable[..., Any]:
    """Starts command lines that write a checkpoint at every evaluation, each on one core: short waits when busy."""
    return partial(starter, pinned=True, MNIST_SUITE_CHECKPOINT_SECONDS="0", OMP_NUM_THREADS="1")


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "small.py"
    path.write_text(EXPERIMENT.replace("EPOCHS", "8"))
    return path


@pytest.fixture(scope="session")
def plain(experiment: Path) -> Path:
    """The same without pruning: each trial is one training."""
    path = experiment.with_name("plain.py")
    text = experiment.read_text().replace("pruning=Pruning(first=2, factor=2)", "pruning=None")
    path.write_text(text)
    return path


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of all that is random in a test; one for the whole run, MNIST_SUITE_FAULT_SEED, repeats it."""
    chosen = f"{os.environ['MNIST_SUITE_FAULT_SEED']} {request.node.name}"
    print(f"MNIST_SUITE_FAULT_SEED={chosen}")  # noqa: T201
    return random.Random(chosen).randrange(2**31)


@dataclass
class Figures:
    """What a test did; added up at the end of the run, and appended to $MNIST_SUITE_FAULT_LOG, a line a test."""

    test: str
    faults: dict[str, int] = field(default_factory=dict)
    planned: int = 0  # trials of the studies that came to their end
    finished: int = 0
    pruned: int = 0
    failed: int = 0
    lost: int = 0
    duplicated: int = 0
    resumed: int = 0  # studies
    identical: int = 0  # of these, bit for bit the uninterrupted one

    def fault(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    found = Figures(request.node.name)
    yield found
    print(found)  # noqa: T201
    request.node.user_properties.append(("faults", vars(found)))
    if path := os.environ.get("MNIST_SUITE_FAULT_LOG"):
        with open(path, "a") as file:
            file.write(json.dumps(vars(found)) + "\n")


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


Print = dict[str, tuple[Any, ...]]


def fingerprint(directory: StudyDir) -> Print:
    """All of a study that must not depend on what befell it: down to the hash of the weights."""
    found: Print = {}
    for state in directory.states():
        record = state.record
        assert record is not None
        made = record.model_dump(exclude={"attempt", "started", "ended", "cost", "provenance"})
        flops = record.cost.training_flops if record.cost else None
        mistakes = directory.trial(state.id).path / "validation.json"
        answers = file_sha256(mistakes) if mistakes.exists() else None
        found[state.id] = (record.state, made, flops, answers, tuple(sorted(state.trial.params.items())))
    return found


@pytest.fixture(scope="session")
def reference(start: Callable[..., Any], experiment: Path, once: Callable[..., Any]) -> Print:
    """The study as it comes out when nothing happens to it."""

    def make(results: Path) -> Print:
        run = start("sweep", experiment, "--results", results)
        assert run.wait() == 0, run.errors
        directory = StudyDir(results, "small")
        check_promise(directory, Figures("reference"))
        found = fingerprint(directory)
        assert {state for state, *_ in found.values()} == {"finished", "pruned"}
        return found

    return once("reference", make)


def check_identical(directory: StudyDir, reference: Print, figures: Figures) -> None:
    """A study to which something happened came out bit for bit as the one to which nothing did."""
    found = fingerprint(directory)
    figures.resumed += 1
    figures.identical += found == reference
    assert found == reference


def check_promise(directory: StudyDir, figures: Figures, trials: int = TRIALS, *, logs: bool = True) -> None:
    """From the files alone: exactly so many trials, none lost, none twice, every figure true, every model loads."""
    states = directory.states()
    numbers = [s.trial.number for s in states]
    outcomes = Counter(s.record.state for s in states if s.record is not None)
    figures.planned += trials
    figures.finished += outcomes["finished"]
    figures.pruned += outcomes["pruned"]
    figures.failed += outcomes["failed"]
    figures.lost += max(0, trials - outcomes.total())
    figures.duplicated += max(0, len(states) - trials) + len(numbers) - len(set(numbers))
    assert numbers == list(range(trials))
    assert len(directory.trials()) == trials
    status = directory.status()
    assert status is not None
    assert status.state == "done", status
    assert (status.finished + status.pruned + status.failed, status.planned) == (trials, trials)
    if directory.database.exists():
        with contextlib.closing(sqlite3.connect(directory.database)) as database:
            rows = database.execute(TOLD.format(json="json_extract(a.value_json, '$')")).fetchall()
        check_told(rows, states, figures)
    check_judged(states)
    for state in states:
        check_trial(directory, state, logs=logs)


def check_judged(states: list[TrialState]) -> None:
    """At each stage none was pruned that is better than one that went on."""
    for arm in {state.trial.arm for state in states}:
        found = [(s.record.rungs, s) for s in states if s.trial.arm == arm and s.record is not None]
        for stage in range(max(len(rungs) for rungs, _ in found)):
            here = [(rungs[stage][1], len(rungs) > stage + 1 or s.state == "finished", s) for rungs, s in found
                    if len(rungs) > stage]  # fmt: skip
            left = [accuracy for accuracy, on, s in here if not on and "not among the best" in (s.reason or "")]
            assert max(left, default=0.0) <= min((accuracy for accuracy, on, _ in here if on), default=1.0)


TOLD = (
    "select t.state, {json} from trials t left join trial_user_attributes a on a.trial_id = t.trial_id and a.key = 'id'"
)


def check_told(rows: list[Any], states: list[TrialState], figures: Figures) -> None:
    """What the sampler's database was told: each trial once, as it ended. rows: (state, trial id)."""
    told = [trial_id for state, trial_id in rows if state in ("COMPLETE", "PRUNED")]
    figures.duplicated += len(told) - len(set(told))
    assert len(told) == len(set(told))
    assert {i for s, i in rows if s == "COMPLETE"} == {s.id for s in states if s.state == "finished"}
    assert not {s for s, _ in rows} & {"RUNNING", "WAITING"}


def check_trial(directory: StudyDir, state: TrialState, *, logs: bool) -> None:
    from suite.training.checkpoint import SLOTS

    record, place = state.record, directory.trial(state.id)
    assert record is not None
    assert record.trial == state.id
    assert place.sound()
    left = {path.name for path in place.path.iterdir()}
    assert not left & {"checkpoint.json", *SLOTS}
    assert not [name for name in left if name.endswith(".tmp")]
    for name, digest in place.sums().items():
        assert file_sha256(place.path / name) == digest
    events = [line.event for line in EventReader(place.events).poll()]
    evaluated = {(e.epoch, e.accuracy) for e in events if e.kind == "evaluated"}
    assert not logs or set(record.curve) <= evaluated
    assert [epoch for epoch, _ in record.curve] == list(range(1, len(record.curve) + 1))
    assert place.best.exists() == (record.state == "finished")
    if record.state == "finished":
        check_model(directory, state, record)


def check_model(directory: StudyDir, state: TrialState, record: Record) -> None:
    """The weights of a finished trial load, and have the accuracy that the record states."""
    import torch

    from suite.data.datasets import search_splits
    from suite.models.assembly import load_trained
    from suite.models.preprocessing import evaluation_preparer, of_trial
    from suite.training import evaluation

    assert record.accuracy in (record.accuracy_fp32, max(accuracy for _, accuracy in record.curve))
    splits = search_splits("mnist", limit=300)
    validation = evaluation.Examples(
        torch.from_numpy(splits.validation.images), torch.from_numpy(splits.validation.labels)
    )
    expects = of_trial(state.trial, splits.info)
    classes = len(splits.info.classes)
    trained = load_trained(directory.trial(state.id), state.trial, expects, classes, directory.path.parent)
    prepare = evaluation_preparer(trained.expects, torch.device("cpu"))
    assert record.provenance is not None
    head = state.trial.strategy.kind == "head"
    scores = evaluation.evaluate(trained.model, validation, prepare, torch.device("cpu"), torch.float32)
    allowed = 1 / 300 if head else 0.0  # a head was evaluated on features from batches of another size
    expected = record.accuracy
    assert abs(scores.accuracy - expected) <= allowed


def pids(directory: StudyDir) -> set[int]:
    """Processes that have run trials of this study."""
    return {
        line.event.pid
        for trial in directory.trials()
        for line in EventReader(trial.events).poll()
        if line.event.kind == "started"
    }


def events_of(place: Path) -> int:
    """Bytes of all event logs below a place: they grow while something is at work."""
    return sum(path.stat().st_size for path in place.rglob("events.jsonl"))


def half_written(directory: StudyDir) -> list[str]:
    """Names of checkpoint files that are not renamed yet."""
    found: list[str] = []
    with contextlib.suppress(OSError):
        for trial in os.scandir(directory.trials_path):
            found += [n for n in os.listdir(trial) if n.startswith((".last", ".checkpoint")) and n.endswith(".tmp")]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="session")
def faults() -> Any:
    """This module, for tests: with `importlib` as import mode there is no package to import it from."""
    return sys.modules[__name__]
