"""The controller of a study: the only process that asks, tells and prunes.

`sweep` is a generator: it yields a Status whenever something changed, and does its work between them.
A single training is a study of one trial, so `pretrain` and `finetune` come this way too.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from suite.errors import InputError, WorkError
from suite.execution.controller import Controller, Stop
from suite.execution.plan import Options, best_workers, check, pretraining_of
from suite.spec import (
    Experiment,
    Status,
)
from suite.store.files import disk_fault, make_writable
from suite.store.study import STALE_SECONDS, StudyDir


def sweep(
    experiment: Experiment, results: Path, *, study: str | None = None, options: Options, stop: Stop
) -> Iterator[Status]:
    """Run or resume a study to exactly its number of trials. Raises InputError; the last Status tells the end."""
    directory = StudyDir(results, study or experiment.name)
    check(experiment, results, options)
    make_writable(results)
    if options.workers == 0 and options.engine == "local":
        options = replace(options, workers=best_workers(experiment, options.device) if options.population == 1 else 1)
    if experiment.pretraining is not None and any(arm.weights == "experiment" for arm in experiment.arms.values()):
        yield from _pretraining(experiment, results, options, stop)
        if stop.reason:
            return
    with directory.lock():
        yield from _alone(directory)
        controller: Controller | None = None
        try:
            controller = Controller(experiment, results, directory, options, stop)
            yield from controller.run()
        except OSError as error:
            raise WorkError(disk_fault(error)) from error
        except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
            raise WorkError(_of_the_database(error, options, directory.path)) from None
        finally:
            stop.heeded = False
            if controller is not None:
                controller.close()


def _alone(directory: StudyDir) -> Iterator[Status]:
    """Wait until a controller on another host, which a lock may not reach, has been silent for long enough.

    Raises InputError if it gives a sign of life.
    """
    there = directory.live_elsewhere()
    if there is None:
        return
    rest = min(STALE_SECONDS, STALE_SECONDS - (time.time() - there.heartbeat))  # its clock may be ahead of ours
    found = f"pid {there.pid} on {there.host} was at work on it just now: waiting {rest:.0f} s for a sign of life"
    yield there.model_copy(update={"message": found})
    end = time.monotonic() + rest
    while time.monotonic() < end:
        time.sleep(0.2)
        now = directory.status()
        if now is None or now == there:
            continue
        if now.state != "running":
            return
        raise InputError(
            f"Study '{directory.name}' already has a controller: pid {now.pid} on {now.host}. Wait for it, stop it "
            f"with `mnist-suite stop {directory.name}`, or give this run another name with --study NAME."
        )


def _of_the_database(error: Exception, options: Options, place: Path) -> str:
    """One sentence; nothing of an external database's own words, which may hold its URL."""
    if options.storage is not None:
        what = f"The --storage database failed ({type(error.__cause__ or error).__name__})"
    else:
        cause = error.__cause__ or error
        full = shutil.disk_usage(place).free < 2**20  # SQLite calls it an I/O error where its shared memory is hit
        words = str(getattr(cause, "orig", cause)).splitlines()[0]
        what = f"{'The disk is full: ' if full else ''}optuna.db failed ({words})"
    return f"{what}. No trial is lost: mend that, for example by freeing space, and go on with --resume."


def _pretraining(experiment: Experiment, results: Path, options: Options, stop: Stop) -> Iterator[Status]:
    plan = pretraining_of(experiment)
    done = StudyDir(results, plan.name)
    status = done.status()
    if status is not None and status.state == "done" and any(s.state == "finished" for s in done.states()):
        return
    alone = replace(options, workers=1, population=1, storage=None, resume=True)
    yield from sweep(plan, results, options=alone, stop=stop)
    if stop.reason is None and not any(s.state == "finished" for s in done.states()):
        reasons = ", ".join(s.reason or s.state for s in done.states())
        raise InputError(f"The pretraining that this experiment stands on did not finish: {reasons}.")
