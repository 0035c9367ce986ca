"""The contract that every executor keeps (`suite.execution.job.Executor`), with real trials of a few images."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from suite.data.datasets import search_splits
from suite.execution.inline import Inline
from suite.execution.job import NO_LIMITS, Executor, Job, Message, awaits_verdict
from suite.execution.processes import Processes
from suite.execution.stacked import Together
from suite.spec import Evaluated, Event, Paused, Recipe, Started, Trial, Verdict
from suite.store.events import EventReader
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState

LIMIT = 60  # images of each split
EPOCHS = 3
RUNG = 1  # epoch
PATIENCE = 240.0  # seconds; a wait that is met ends at once

Make = Callable[[str, Path], Executor]
Submit = Callable[..., Job]


@pytest.fixture(scope="module")
def make(lasting_cluster, cheap_workers) -> Iterator[Make]:
    """Makes executors by kind. Those on Ray share a cluster of this machine."""
    environment = pytest.MonkeyPatch()
    made: list[Executor] = []
    reach: dict[str, str] = {}

    def one(kind: str, results: Path) -> Executor:
        if kind == "ray":
            from suite.execution.ray_cluster import Cluster

            if not reach:
                reach.update(lasting_cluster(cpus=2))
            for name, value in reach.items():
                environment.setenv(name, value)
            executor: Executor = Cluster(2, NO_LIMITS, "cpu", results)
        elif kind == "processes":
            executor = Processes(2)
        else:
            executor = Inline() if kind == "inline" else Together(2, everywhere=True)
        made.append(executor)
        return executor

    yield one
    for executor in made:
        executor.close()
    environment.undo()


pytestmark = pytest.mark.slow

RAY = pytest.param("ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"))


@pytest.fixture(scope="module", params=["inline", "stacked", "processes", RAY])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def executor(make: Make, kind: str, results: Path) -> Executor:
    """One for all tests of its kind, so that each test also finds it as the one before has left it."""
    return make(kind, results)


@pytest.fixture
def submit(request: pytest.FixtureRequest, results: Path) -> Submit:
    """Submits a trial, a new one by default, and returns its job."""
    study = StudyDir(results, f"s-{abs(hash(request.node.name))}")
    info = search_splits("mnist", limit=LIMIT).info
    attempts = 0

    def one(executor: Executor, trial: Trial | None = None, *, stage: int = 0, **changes: object) -> Job:
        nonlocal attempts
        attempts += 1
        if trial is None:
            trial = Trial(
                study=study.name,
                arm="net",
                number=attempts,
                dataset="mnist",
                data_hash=info.data_hash,
                split_hash=info.split_hash,
                fraction=1.0,
                limit=LIMIT,
                backbone="net",
                weights=None,
                size=None,
                strategy={"kind": "scratch"},  # type: ignore[arg-type]
                recipe=Recipe(epochs=EPOCHS, batch_size=16, lr=0.05, precision="fp32"),
                params={},
                seed=1,
                device="cpu",
                threads=1,
                **{"rungs": (RUNG,), **changes},  # type: ignore[arg-type]
            )
            study.trial(trial.id).create(trial)
        job = Job(
            trial, trial.id, str(study.trial(trial.id).path), str(results), f"attempt-{attempts}", "a test", stage
        )
        executor.submit(job)
        return job

    return one


def until(executor: Executor, over: Callable[[Message], bool]) -> list[Message]:
    """Poll until a message for which `over` holds; lets all trials go on that come to a rung before."""
    messages: list[Message] = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = False
        for message in executor.poll(0.2):
            messages.append(message)
            if over(message):
                found = True
            elif is_rung(message):
                executor.reply(message.trial_id, None)
        if found:
            return messages
    raise AssertionError(f"not among {messages}")


def is_rung(message: Message) -> bool:
    return isinstance(message.event, Evaluated) and message.event.epoch == RUNG


def is_over(message: Message) -> bool:
    return message.event is None


def has_started(message: Message) -> bool:
    return isinstance(message.event, Started)


def log_of(job: Job) -> list[Event]:
    return [line.event for line in EventReader(TrialDir(Path(job.directory)).events).poll()]


def state_of(job: Job) -> TrialState:
    study = StudyDir(Path(job.results), job.trial.study)
    return next(state for state in study.states() if state.id == job.trial_id)


@pytest.mark.slow
def test_all_events_arrive_in_order_and_then_the_end(executor: Executor, submit: Submit) -> None:
    jobs: list[Job] = []
    while free := executor.free():
        jobs.append(submit(executor))
        assert executor.free() == free - 1
    assert len(jobs) == executor.slots
    messages: list[Message] = []
    while executor.free() < executor.slots:
        messages += until(executor, is_over)
    for job in jobs:
        own = [message for message in messages if message.trial_id == job.trial_id]
        assert {message.attempt for message in own} == {job.attempt}
        assert [message.event for message in own] == [*log_of(job), None]
        assert own[-1].lost is None
        assert state_of(job).state == "finished"
        assert Path(job.directory, "console.log").exists()


def test_a_trial_pauses_at_a_rung_until_there_is_a_reply(executor: Executor, submit: Submit) -> None:
    job = submit(executor)
    until(executor, is_rung)
    for _ in range(5):
        assert executor.poll(0.2) == []
    assert awaits_verdict(job.trial, log_of(job)[-1])
    executor.reply(job.trial_id, None)
    until(executor, is_over)
    assert state_of(job).state == "finished"


@pytest.mark.parametrize("verdicts", [("prune",), ("prune", "stop"), ("prune", "stop", "stop")])
def test_prune_at_a_rung_ends_the_trial_whatever_follows(
    executor: Executor, submit: Submit, verdicts: tuple[Verdict, ...]
) -> None:
    """The rung is judged once: a request to stop that follows before the trial has heard of it changes nothing."""
    job = submit(executor)
    until(executor, is_rung)
    for verdict in verdicts:
        executor.reply(job.trial_id, verdict)
    until(executor, is_over)
    state = state_of(job)
    assert state.state == "pruned"
    assert len(state.curve) == 1


def test_a_stop_at_a_rung_leaves_a_trial_that_can_be_resumed(executor: Executor, submit: Submit) -> None:
    job = submit(executor)
    until(executor, is_rung)
    executor.reply(job.trial_id, "stop")
    until(executor, is_over)
    check_resumable(executor, submit, job)


def test_a_stop_before_a_rung_does_not_answer_it_and_stays_in_force(executor: Executor, submit: Submit) -> None:
    """Asked after the first event. Where the rung comes all the same, going on at the rung does not take it back."""
    job = submit(executor)
    until(executor, has_started)
    for _ in range(3):
        executor.reply(job.trial_id, "stop")
    until(executor, is_over)
    check_resumable(executor, submit, job)


def check_resumable(executor: Executor, submit: Submit, job: Job) -> None:
    state = state_of(job)
    assert state.record is None
    assert state.state == "stopped"
    again = submit(executor, job.trial)
    assert again.attempt != job.attempt
    until(executor, is_over)
    state = state_of(job)
    assert state.state == "finished"
    assert [epoch for epoch, _ in state.curve] == list(range(1, EPOCHS + 1))
    starts = [event for event in log_of(job) if isinstance(event, Started)]
    assert [start.attempt for start in starts] == [job.attempt, again.attempt]
    assert starts[1].step > 0  # from a checkpoint


def test_a_trial_makes_room_after_a_short_training_and_begins_anew_once_it_is_promoted(
    executor: Executor, submit: Submit
) -> None:
    job = submit(executor, rungs=(), stages=(1.0, 2.0))
    *_, paused, _ = until(executor, is_over)
    assert isinstance(paused.event, Paused)
    assert executor.free() == executor.slots
    state = state_of(job)
    assert (state.state, state.record, state.rungs) == ("paused", None, [(1.0, paused.event.accuracy)])
    submit(executor, job.trial, stage=1)
    until(executor, is_over)
    submit(executor, job.trial, stage=2)
    until(executor, is_over)
    record = TrialDir(Path(job.directory)).record()
    assert record is not None
    assert record.state == "finished"
    assert [epochs for epochs, _ in record.rungs] == [1.0, 2.0]
    assert [epoch for epoch, _ in record.curve] == [1.0, 2.0, 3.0]
    assert [event.step for event in log_of(job) if isinstance(event, Started)] == [0, 0, 0]


def test_replies_to_trials_that_do_not_run_here_have_no_effect(executor: Executor, submit: Submit) -> None:
    first = submit(executor)
    executor.reply("0000-unknown", "stop")
    until(executor, is_over)
    executor.reply(first.trial_id, "prune")
    second = submit(executor)
    until(executor, is_over)
    assert [state_of(job).state for job in (first, second)] == ["finished", "finished"]


def test_a_trial_whose_worker_is_killed_is_lost_and_another_worker_resumes_it(
    executor: Executor, kind: str, submit: Submit
) -> None:
    if kind in ("inline", "stacked"):
        pytest.skip("runs in the controller's own process")
    job = submit(executor)
    until(executor, is_rung)
    start = log_of(job)[0]
    assert isinstance(start, Started)
    os.kill(start.pid, signal.SIGKILL)
    executor.reply(job.trial_id, None)
    message = until(executor, is_over)[-1]
    assert message.lost is not None
    assert message.again
    assert executor.free() == executor.slots
    assert state_of(job).record is None
    submit(executor, job.trial)
    until(executor, is_over)
    assert state_of(job).state == "finished"


@pytest.mark.slow
def test_close_ends_all_workers_and_leaves_trials_that_can_be_resumed(
    make: Make, kind: str, executor: Executor, submit: Submit, results: Path
) -> None:
    executor.close()  # a Ray cluster admits one connection of a process at a time
    executor.close()
    closed = make(kind, results)
    job = submit(closed)
    until(closed, is_rung)
    closed.close()
    closed.close()
    start = log_of(job)[0]
    assert isinstance(start, Started)
    if start.pid != os.getpid():
        end = time.monotonic() + PATIENCE
        while psutil.pid_exists(start.pid) and psutil.Process(start.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert state_of(job).record is None
    with_another = make(kind, results)
    submit(with_another, job.trial)
    until(with_another, is_over)
    assert state_of(job).state == "finished"
    with_another.close()
