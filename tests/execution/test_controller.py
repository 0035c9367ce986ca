"""The controller's loop and its parts, with an executor that does what each test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from suite.execution.controller import Controller
from suite.execution.failures import MAX_ATTEMPTS, MAX_SAME_FAILURES, FailureStreak
from suite.execution.job import Job, Message
from suite.execution.ledger import Ledger
from suite.execution.options import Options
from suite.execution.replay import FixedTrials
from suite.execution.searched_trials import SearchedTrials
from suite.execution.status import StatusWriter
from suite.execution.stop import Stop
from suite.spec import Arm, Evaluated, Experiment, Line, Paused, Pruning, Record, Started, Trial, Verdict
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState
from suite.training import checkpoint

Answer = Callable[[Job], list[Message]]


class Scripted:
    """An executor of one slot whose attempts are answered by a function of the job: all its messages at once."""

    slots, threads = 1, 1

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.jobs: list[Job] = []
        self.verdicts: list[Verdict | None] = []
        self.closed = False
        self._job: Job | None = None

    def free(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        self._job = job
        self.jobs.append(job)

    def poll(self, timeout: float) -> list[Message]:
        job = self._job
        assert job is not None
        messages = self.answer(job)
        if any(m.attempt == job.attempt and (m.event is None) for m in messages):
            self._job = None
        return messages

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        self.verdicts.append(verdict)

    def close(self) -> None:
        self.closed = True


def scripted(controller: Controller) -> Scripted:
    assert isinstance(controller.executor, Scripted)
    return controller.executor


def jobs(controller: Controller) -> list[Job]:
    """The attempts, in order."""
    return scripted(controller).jobs


class Recorded(FixedTrials):
    """Given trials, of which one that is given up gets a record, as in a search."""

    def lost(self, state: TrialState, attempt: str, reason: str) -> Record:  # type: ignore[override]
        return Record(trial=state.id, arm=state.trial.arm, state="failed", attempt=attempt, reason=reason)


def finished(job: Job, accuracy: float = 0.5) -> Message:
    """The end of an attempt that has written its result."""
    record = Record(
        trial=job.trial_id, arm=job.trial.arm, state="finished", attempt=job.attempt, accuracy=accuracy,
        curve=((1.0, accuracy),),
    )  # fmt: skip
    TrialDir(Path(job.directory)).conclude(record)
    return Message(job.trial_id, job.attempt)


def evaluated(job: Job, epoch: float) -> Message:
    event = Evaluated(step=1, epoch=epoch, accuracy=0.5, loss=1.0, seconds=1.0)
    return Message(job.trial_id, job.attempt, event)


@pytest.fixture
def run(tmp_path: Path, make_trial: Callable[..., Trial]) -> Callable[..., Controller]:
    """A controller over three trials of one arm, after its run."""

    def make(
        answer: Answer, source: type[FixedTrials] = FixedTrials, pruned: Record | None = None, **changes: object
    ) -> Controller:
        directory = StudyDir(tmp_path, "s")
        trials = [make_trial(number=number, seed=number, **changes) for number in range(3)]
        for trial in trials:
            directory.trial(trial.id).create(trial)
        ledger = Ledger(TrialState(trial.id, trial) for trial in trials)
        planned = dict(ledger.made)
        status = StatusWriter(directory, ledger, planned, workers=1)
        controller = Controller(
            directory, tmp_path, source(planned, pruned), ledger, Scripted(answer), status, Stop(), "the command"
        )
        for _ in controller.run():
            pass
        return controller

    return make


def test_trials_run_in_order_and_each_once(run: Callable[..., Controller], tmp_path: Path) -> None:
    controller = run(lambda job: [finished(job, accuracy=0.1 * (job.trial.number + 1))])
    assert [job.trial.number for job in jobs(controller)] == [0, 1, 2]
    status = StudyDir(tmp_path, "s").status()
    assert status is not None
    assert (status.state, status.finished, status.planned) == ("done", 3, 3)
    assert status.best_trial == jobs(controller)[2].trial_id


def test_a_lost_worker_costs_an_attempt_and_the_trial_runs_again(run: Callable[..., Controller]) -> None:
    lost: list[str] = []

    def answer(job: Job) -> list[Message]:
        if job.trial.number == 1 and not lost:
            lost.append(job.attempt)
            return [Message(job.trial_id, job.attempt, lost="its worker was killed")]
        return [finished(job)]

    controller = run(answer)
    assert [job.trial.number for job in jobs(controller)] == [0, 1, 2, 1]
    assert len({job.attempt for job in jobs(controller)}) == 4
    assert controller.ledger.outcomes["finished"] == 3


def test_a_trial_that_keeps_losing_its_worker_fails_or_ends_the_run(run: Callable[..., Controller]) -> None:
    def answer(job: Job) -> list[Message]:
        return [Message(job.trial_id, job.attempt, lost="its worker was killed") if job.trial.number else finished(job)]

    controller = run(answer, Recorded)
    assert controller.failure == ""
    failed = [s for s in controller.ledger.states.values() if s.state == "failed"]
    assert [s.reason for s in failed] == [f"its worker was killed, {MAX_ATTEMPTS} times"] * 2
    assert all(controller.ledger.attempts(s.id) == MAX_ATTEMPTS for s in failed)


def test_a_given_trial_that_keeps_losing_its_worker_ends_the_run_without_a_record(
    run: Callable[..., Controller], tmp_path: Path
) -> None:
    controller = run(lambda job: [Message(job.trial_id, job.attempt, lost="its worker was killed")])
    assert f"its worker was killed, {MAX_ATTEMPTS} times" in controller.failure
    directory = StudyDir(tmp_path, "s")
    assert not [s for s in directory.states() if s.record]
    status = directory.status()
    assert status is not None and status.state == "failed"


def test_a_loss_that_would_repeat_itself_is_not_tried_again(run: Callable[..., Controller]) -> None:
    controller = run(lambda job: [Message(job.trial_id, job.attempt, lost="time limit", again=False)], Recorded)
    assert len(jobs(controller)) == 3
    assert {s.reason for s in controller.ledger.states.values()} == {"time limit"}


def test_a_worker_lost_after_its_result_leaves_a_finished_trial(run: Callable[..., Controller]) -> None:
    def answer(job: Job) -> list[Message]:
        finished(job)
        return [Message(job.trial_id, job.attempt, lost="its worker was killed")]

    controller = run(answer)
    assert controller.ledger.outcomes["finished"] == len(jobs(controller)) == 3


def test_a_worker_lost_after_a_pause_leaves_a_trial_that_is_judged(run: Callable[..., Controller]) -> None:
    """It is not run on before it is promoted."""

    def answer(job: Job) -> list[Message]:
        record = Record(
            trial=job.trial_id, arm="a", state="pruned", attempt=job.attempt, curve=((1.0, 0.5),), rungs=((1.0, 0.5),)
        )
        checkpoint.save(Path(job.directory), {}, {"rungs": record.rungs, "paused": record.model_dump_json()})
        event = Paused(epochs=1.0, accuracy=0.5, step=1)
        return [
            Message(job.trial_id, job.attempt, event),
            Message(job.trial_id, job.attempt, lost="its worker was killed"),
        ]

    pruned = Record(trial="t", arm="a", state="pruned", attempt="x", rungs=((1.0, 0.5),), reason="as then")
    controller = run(answer, pruned=pruned, stages=(1.0,))
    assert [job.stage for job in jobs(controller)] == [0, 0, 0]
    assert {(state.state, state.reason) for state in controller.ledger.states.values()} == {("pruned", "as then")}


def test_a_trial_is_judged_once_its_attempt_is_over(make_trial: Callable[..., Trial]) -> None:
    """The other one, which ends between its pause and its end, has told all that is to be known."""
    states = {n: TrialState(trial.id, trial) for n in (0, 1) for trial in [make_trial(number=n, stages=(1.0,))]}
    ledger = Ledger(states.values())
    arm = Arm(backbone="net")
    question = Experiment(name="s", question="?", dataset="mnist", arms={"a": arm}, trials=2, pruning=Pruning(factor=2))
    resolver = SimpleNamespace(experiment=question, quota={"a": 2})
    source = SearchedTrials({}, resolver, Options(), ledger)  # type: ignore[arg-type]
    for number, state in states.items():
        ledger.begin()
        event = Paused(epochs=1.0, accuracy=0.5 + number / 10, step=1)
        state.update([Line(seq=0, time=1.0, event=event)])
    ledger.pause(states[0])
    assert source.judged(ledger, states[0]) == []
    ledger.pause(states[1])
    assert [(state.id, why is None) for state, why in source.judged(ledger, states[1])] == [
        (states[0].id, False),
        (states[1].id, True),
    ]


def test_a_message_of_an_attempt_that_was_given_up_is_dropped(run: Callable[..., Controller]) -> None:
    def answer(job: Job) -> list[Message]:
        stale = Started(attempt="0" * 16, pid=1, host="elsewhere")
        return [Message(job.trial_id, "0" * 16, stale), Message(job.trial_id, "0" * 16, lost="late"), finished(job)]

    controller = run(answer)
    assert controller.ledger.outcomes["finished"] == 3
    assert all(state.started is None for state in controller.ledger.states.values())


def test_a_rung_gets_a_verdict_even_where_a_stop_was_asked_for(run: Callable[..., Controller], tmp_path: Path) -> None:
    """The trial would not ask at that rung again: it is at its end in the next run."""

    def answer(job: Job) -> list[Message]:
        StudyDir(tmp_path, "s").request_stop("now")
        return [evaluated(job, epoch=1.0), finished(job)]

    pruned = Record(trial="t", arm="a", state="pruned", attempt="x", curve=((1.0, 0.5),))
    controller = run(answer, pruned=pruned, rungs=(1.0,))
    assert scripted(controller).verdicts[0] == "prune"
    assert controller.stop.reason == "stop.request"
    status = StudyDir(tmp_path, "s").status()
    assert status is not None and status.state == "stopped"
    assert len(jobs(controller)) == 1


def test_an_attempt_without_a_result_is_repeated_but_not_for_ever(run: Callable[..., Controller]) -> None:
    controller = run(lambda job: [Message(job.trial_id, job.attempt)])
    assert f"ended {MAX_ATTEMPTS} times without a result" in controller.failure
    assert {s.state for s in controller.ledger.states.values()} == {"stopped"}


def test_a_run_that_breaks_off_ends_its_workers_and_says_so(run: Callable[..., Controller], tmp_path: Path) -> None:
    def answer(job: Job) -> list[Message]:
        raise OSError("the disk has gone")

    with pytest.raises(OSError, match="the disk has gone"):
        run(answer)
    status = StudyDir(tmp_path, "s").status()
    assert status is not None
    assert (status.state, status.message, status.running) == ("failed", "the controller broke off", ())


def test_failures_of_one_cause_in_a_row_end_a_search() -> None:
    def record(state: str, reason: str | None = None) -> Record:
        return Record.model_validate({"trial": "t", "arm": "a", "state": state, "attempt": "x", "reason": reason})

    streak = FailureStreak()
    many = [streak.add(record("failed", f"tried to allocate {n} MiB")) for n in range(MAX_SAME_FAILURES)]
    assert many[:-1] == [None] * (MAX_SAME_FAILURES - 1)
    assert many[-1] == f"{MAX_SAME_FAILURES} trials in a row failed with: tried to allocate {MAX_SAME_FAILURES - 1} MiB"
    assert streak.add(record("failed", "another cause")) is None
    for _ in range(MAX_SAME_FAILURES):
        assert streak.add(record("finished")) is None
        assert streak.add(record("failed", "another cause")) is None
