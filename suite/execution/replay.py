"""Runs trials that are already resolved, without a search: for the final evaluation and for repeats.

The files are those of any study, so a run that was stopped or killed goes on with the next call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.errors import WorkError
from suite.execution.controller import Controller
from suite.execution.ledger import Ledger
from suite.execution.options import Options
from suite.execution.status import StatusWriter, wait_for_other_host
from suite.execution.stop import Stop
from suite.spec import Evaluated, Paused, Record, Status, Trial
from suite.store.study import StudyDir
from suite.store.trial import TrialState


class FixedTrials:
    """A `TrialSource` of given trials, all of which are in the ledger from the beginning."""

    def __init__(self, planned: dict[str, int], pruned: Record | None = None) -> None:
        """`pruned`: how a search ended the trial, whose repeat ends there too. None: trials end by themselves."""
        self.planned, self.pruned = planned, pruned

    def next(self, ledger: Ledger) -> None:
        return None

    def prunes(self, state: TrialState, event: Evaluated) -> bool:
        return self.pruned is not None and not self.pruned.rungs and event.epoch == self.pruned.curve[-1][0]

    def paused(self, state: TrialState, event: Paused) -> None:
        return None

    def judged(self, ledger: Ledger, changed: TrialState | None) -> list[tuple[TrialState, str | None]]:
        states = ledger.states.values() if changed is None else [changed]
        return [(state, self._why(state)) for state in states if state.state == "paused"]

    def _why(self, state: TrialState) -> str | None:
        """Why a trial ends with this short training; None: it goes on."""
        if self.pruned is None or len(state.rungs) != len(self.pruned.rungs):
            return None
        return self.pruned.reason or ""

    def ended(self, state: TrialState, record: Record) -> None:
        """A failed trial has no bearing on the others: every one of them is asked for."""
        return None

    def lost(self, state: TrialState, attempt: str, reason: str) -> None:
        """The run ends without a record, so that the next call tries the trial again."""
        return None


def replay(
    trials: Sequence[Trial],
    directory: StudyDir,
    results: Path,
    *,
    stop: Stop,
    options: Options | None = None,
    pruned: Record | None = None,
) -> Iterator[Status]:
    """Run `trials` below `directory` to their end, in order; yields a Status as `Controller.run` does.

    A trial found there with a record is not run again, unless it failed: its cause may be mended. An unfinished one
    goes on from its checkpoint. `results` is where weights are looked up. `options` say how many run at once. `pruned`
    is the record of a trial that a search pruned: trials end after its last epoch, or after as many short trainings.
    Raises WorkError where a trial keeps losing its worker or another controller takes over, InputError where another
    one is at work.
    """
    options = options or Options(device=trials[0].device if trials else "auto")
    with directory.lock(), contextlib.closing(options.executor(results)) as executor:
        yield from wait_for_other_host(directory)
        directory.stop_path.unlink(missing_ok=True)
        states = _states(directory, trials)
        for state in states:
            if state.state == "failed":
                directory.trial(state.id).reopen()
                state.reopen()
        ledger = Ledger(states)
        source = FixedTrials(dict(ledger.made), pruned)
        workers = executor.slots if options.population == 1 else 1
        status = StatusWriter(directory, ledger, source.planned, workers=workers)
        controller = Controller(directory, results, source, ledger, executor, status, stop, options.command)
        with stop.observe():
            yield from controller.run()
    if controller.failure:
        raise WorkError(f"{controller.failure[0].upper()}{controller.failure[1:]}; see {directory.path}.")


def _states(directory: StudyDir, trials: Sequence[Trial]) -> list[TrialState]:
    """The states of `trials` in their order; directories are made for those that have none yet."""
    there = directory.states()
    known = {content(state.trial): state for state in there}
    number = max((state.trial.number for state in there), default=-1) + 1
    states: dict[str, TrialState] = {}
    for trial in trials:
        state = known.get(content(trial))
        if state is None:
            trial = trial.model_copy(update={"number": number, "study": directory.name})
            number += 1
            directory.trial(trial.id).create(trial)
            state = TrialState(trial.id, trial)
        states[state.id] = state
    return list(states.values())


def content(trial: Trial) -> str:
    """The part of the id that identifies the training itself: the hash without the number."""
    return trial.id.partition("-")[2]


def find(directory: StudyDir, trials: Sequence[Trial]) -> dict[str, TrialState]:
    """The states of those of `trials` that have a directory, by `content`."""
    wanted = {content(trial) for trial in trials}
    return {key: state for state in directory.states() if (key := content(state.trial)) in wanted}
