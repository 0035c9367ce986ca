"""Runs a study: opens or resumes it, trains what it needs first, and hands it to the controller.

A single training is a study of one trial, so `pretrain` and `finetune` come this way too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from suite.data.listing import canonical
from suite.errors import InputError, WorkError
from suite.execution.controller import Controller
from suite.execution.job import Executor
from suite.execution.ledger import Ledger
from suite.execution.opening import Opening, check_study
from suite.execution.options import Options, best_workers
from suite.execution.plan import check, pretrainings_of
from suite.execution.reconcile import open_searches, reconcile
from suite.execution.resolution import TrialResolver
from suite.execution.searched_trials import SearchedTrials
from suite.execution.status import StatusWriter, wait_for_other_host
from suite.execution.stop import Stop
from suite.search.storage import DamagedDatabase
from suite.spec import Experiment, Status
from suite.store.files import disk_fault, make_writable
from suite.store.study import StudyDir
from suite.store.trial import TrialState
from suite.training.checkpoint import passed
from suite.training.measuring import announced


def sweep(
    experiment: Experiment,
    results: Path,
    *,
    study: str | None = None,
    options: Options,
    stop: Stop,
    executor: Executor | None = None,
) -> Iterator[Status]:
    """Run or resume a study to exactly its number of trials; yields a Status as `Controller.run` does.

    The weights 'experiment' of its arms are trained first, as a study of their own. `executor`: an open one to run
    on, which stays open; else `options` say which to open. Raises InputError where the study cannot run as asked,
    WorkError where the disk or the database fails or another controller takes over.
    """
    experiment = experiment.model_copy(update={"dataset": canonical(experiment.dataset)})
    directory = StudyDir(results, study or experiment.name)
    check(experiment, results, options, begun=directory.study() is not None)
    make_writable(results)
    if options.workers == 0 and options.engine == "local":
        workers = 1 if options.population != 1 else (yield from _best_workers(experiment, options, directory))
        options = replace(options, workers=workers)
    with directory.lock():
        yield from wait_for_other_host(directory)
        with _faults_translated(options, directory):
            directory.stop_path.unlink(missing_ok=True)
            opening = check_study(directory, experiment, results, options)
            with contextlib.ExitStack() as opened:
                if executor is None:
                    executor = opened.enter_context(contextlib.closing(options.executor(results)))
                yield from _pretraining(experiment, results, options, stop, executor)
                if stop.reason is None:
                    yield from _run(opening, results, options, stop, executor)


def _best_workers(experiment: Experiment, options: Options, directory: StudyDir) -> Generator[Status, None, int]:
    """`best_workers`; yields a Status once where it takes more than two seconds."""
    now = time.time()
    word = Status(
        study=directory.name,
        pid=os.getpid(),
        host=socket.gethostname(),
        state="running",
        planned=experiment.trials,
        started=now,
        heartbeat=now,
        message="measuring how many trials at once are fastest",
    )
    return (yield from announced(best_workers(experiment, options.device), word))


def _run(opening: Opening, results: Path, options: Options, stop: Stop, executor: Executor) -> Iterator[Status]:
    directory, experiment = opening.directory, opening.file.experiment
    searches, notes = open_searches(opening, options, parallel=executor.slots > 1)
    opening.write()
    with stop.observe():
        resolver = TrialResolver(
            experiment, directory.name, results, device=options.first_device, threads=executor.threads
        )
        retried = _reopen_failed(directory) if options.retry_failed else []
        mended = reconcile(opening, searches, resolver)
        notes += retried or mended  # the database cannot agree with trials that are to run again
        ledger = Ledger(_taken_up(state, directory, options.first_device) for state in directory.states())
        source = SearchedTrials(searches, resolver, options, ledger)
        workers = executor.slots if options.population == 1 else 1
        status = StatusWriter(directory, ledger, source.planned, workers=workers, note="; ".join(notes))
        yield from Controller(directory, results, source, ledger, executor, status, stop, options.command).run()


def _reopen_failed(directory: StudyDir) -> list[str]:
    """Have the failed trials run again; returns a note on each."""
    failed = [state for state in directory.states() if state.state == "failed"]
    for state in failed:
        directory.trial(state.id).reopen()
    return [f"trial {s.id} failed before ({s.reason or 'no reason is known'}): it is trained again" for s in failed]


def _taken_up(state: TrialState, directory: StudyDir, device: str) -> TrialState:
    """An unfinished trial goes on where this run is to train; it may have begun on another device.

    Which short trainings it has passed is what its checkpoint says, where a checksum guards every figure, as far as its
    event log tells of them. Those that the checkpoint lacks are repeated.
    """
    if state.record is not None:
        return state
    state.trial = state.trial.model_copy(update={"device": device})
    if told := len(state.rungs):
        state.rungs = passed(directory.trial(state.id).path)[:told]
        if len(state.rungs) < told:
            state.state = "waiting"
    return state


def _pretraining(
    experiment: Experiment, results: Path, options: Options, stop: Stop, executor: Executor
) -> Iterator[Status]:
    """Train the weights and teachers 'experiment', where an arm needs them and they are not there yet.

    On a cluster this runs on the executor of the study: a process that shuts Ray down and connects again at once
    loses the race against its own shutdown. Here it runs alone, with all the threads of this machine.
    """
    alone = replace(
        options,
        workers=1,
        population=1,
        device=options.first_device,
        storage=None,
        resume=True,
        retry_failed=True,
    )
    shared = executor if options.engine == "ray" else None
    for plan in pretrainings_of(experiment):
        done = StudyDir(results, plan.name)
        status = done.status()
        if status is not None and status.state == "done" and any(s.state == "finished" for s in done.states()):
            continue
        yield from sweep(plan, results, options=alone, stop=stop, executor=shared)
        if stop.reason is not None:
            return
        if not any(s.state == "finished" for s in done.states()):
            reasons = ", ".join(s.reason or s.state for s in done.states())
            raise InputError(f"The pretraining that this experiment starts from did not finish: {reasons}.")


@contextlib.contextmanager
def _faults_translated(options: Options, directory: StudyDir) -> Iterator[None]:
    """Faults of the disk and of the database as WorkError."""
    try:
        yield
    except OSError as error:
        raise WorkError(disk_fault(error)) from error
    except (OptunaError, SQLAlchemyError, sqlite3.Error, DamagedDatabase) as error:
        raise WorkError(_of_the_database(error, options, directory.path)) from None


def _of_the_database(error: Exception, options: Options, place: Path) -> str:
    """One sentence; an external database's own words are left out, since they may hold its URL."""
    cause = error.__cause__ or error
    if options.storage is not None:
        what = f"The --storage database failed ({type(cause).__name__})"
    else:
        full = shutil.disk_usage(place).free < 2**20  # SQLite reports an I/O error where its shared memory is hit
        words = str(getattr(cause, "orig", cause)).splitlines()[0]
        what = f"{'The disk is full: ' if full else ''}optuna.db failed ({words})"
    return f"{what}. No trial is lost: mend that, for example by freeing space, and go on with --resume."
