"""The trials of a run: the state of each, the attempt that counts, and the order in which the unfinished ones wait.

States of a trial::

    waiting --> running --> finished | pruned | failed
       ^           |                     ^
       |           +--> stopped          |
       +-----------+-------+             |
       |           +--> paused ----------+
       +-------------------+

waiting
    trial.json is written and no attempt is under way: the trial is new, or its last attempt lost its worker.
running
    An attempt was submitted to the executor and has yielded its `Started` event.
stopped
    The last attempt ended without a result, because it was asked to stop or could not go on. It has a checkpoint
    unless it was stopped before its first one. The next attempt goes on from there, in this run or with ``--resume``.
paused
    A complete short training is over. The search promotes the trial, which then waits for its next attempt, or prunes
    it, as `search.pruning` decides.
finished
    Trained to its last epoch; best.safetensors holds the weights of its best evaluation.
pruned
    Ended before its last epoch: not promoted, by one of Optuna's pruners, by a cap on cost, or because it diverged.
failed
    Ended by an error, by a time or memory limit, or given up after it lost its worker too often (`failures`).

The last three are final. They begin when result.json appears, which is written last and atomically: without it a
trial is unfinished whatever its events say, and with it the trial is never run again.

Attempts: every submission of a trial to the executor is an attempt with a random token of its own. The token is part
of the job, of every message that the executor returns, of the `Started` event and of result.json. A message whose
token is not the current one comes from an attempt that was given up, and is dropped. A worker that finds a later
token in the event log of its trial leaves the trial alone (`suite.store.trial.TrialDir.overtaken`).

Retries are decided in `suite.execution.failures`.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import Literal

from suite.spec import Record
from suite.store.trial import TrialState


class Ledger:
    """All trials of a run, by id. Those without a record wait for an attempt, in the order in which they were added,
    or are paused."""

    def __init__(self, states: Iterable[TrialState]) -> None:
        self.states: dict[str, TrialState] = {}
        self.made: Counter[str] = Counter()  # trials by arm
        self.done: Counter[str] = Counter()  # of them, trials with a record
        self.outcomes: Counter[str] = Counter()  # records by state
        self.timed: Counter[str] = Counter()  # records with a cost, by arm
        self.wall_seconds: defaultdict[str, float] = defaultdict(float)  # total of these, by arm
        self.best: TrialState | None = None  # the finished trial of highest validation accuracy
        self.next_number = 0
        self._waiting: deque[str] = deque()
        self._paused: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._tokens: dict[str, str] = {}  # of the attempts under way
        for state in states:
            self.add(state)

    def add(self, state: TrialState) -> None:
        """Take in a trial. Without a record it waits, unless it is paused."""
        self.states[state.id] = state
        self.made[state.trial.arm] += 1
        self.next_number = max(self.next_number, state.trial.number + 1)
        if state.record is None:
            if state.state == "paused":
                self._paused.add(state.id)
            else:
                self._waiting.append(state.id)
        else:
            self._count(state, state.record)

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the trials with an attempt under way."""
        return tuple(self._tokens)

    def complete(self, planned: int) -> bool:
        """Whether there are `planned` trials and all of them have a record."""
        return len(self.states) == planned == self.outcomes.total()

    def begin(self) -> tuple[TrialState, str]:
        """Begin an attempt at the trial that has waited longest; returns it and the attempt's token."""
        trial_id = self._waiting.popleft()
        token = self._tokens[trial_id] = secrets.token_hex(8)
        self._attempts[trial_id] += 1
        return self.states[trial_id], token

    def is_current(self, trial_id: str, attempt: str) -> bool:
        return self._tokens.get(trial_id) == attempt

    def attempts(self, trial_id: str) -> int:
        """How often the trial was begun in this run."""
        return self._attempts[trial_id]

    def end(self, state: TrialState, record: Record) -> None:
        """The trial's attempt is over and came to this record."""
        self._tokens.pop(state.id, None)
        self._paused.discard(state.id)
        state.settle(record)
        self._count(state, record)

    def requeue(self, state: TrialState, why: Literal["waiting", "stopped"]) -> None:
        """The trial's attempt is over without a record: it waits for another one."""
        self._tokens.pop(state.id, None)
        state.state = why
        self._waiting.append(state.id)

    def pause(self, state: TrialState) -> None:
        """The trial's attempt is over with a short training. The next one counts its attempts anew."""
        self._tokens.pop(state.id, None)
        self._attempts[state.id] = 0
        self._paused.add(state.id)

    def promote(self, state: TrialState) -> None:
        """A paused trial goes on, before those that wait."""
        state.state = "waiting"
        self._paused.discard(state.id)
        self._waiting.appendleft(state.id)

    def is_paused(self, state: TrialState) -> bool:
        """Whether a short training of the trial is over, and so is the attempt that made it."""
        return state.id in self._paused

    @property
    def paused(self) -> tuple[str, ...]:
        """Ids of the paused trials."""
        return tuple(self._paused)

    def abandon(self) -> None:
        """No attempt is under way any more."""
        self._tokens.clear()

    def _count(self, state: TrialState, record: Record) -> None:
        arm = state.trial.arm
        self.done[arm] += 1
        self.outcomes[record.state] += 1
        if record.cost is not None:
            self.timed[arm] += 1
            self.wall_seconds[arm] += record.cost.wall_seconds
        if record.state == "finished" and state.best is not None and _rank(state) > _rank(self.best):
            self.best = state


def _rank(state: TrialState | None) -> tuple[float, int]:
    """By accuracy, the earlier trial on a tie."""
    return (-1.0, 0) if state is None else (state.best or 0.0, -state.trial.number)
