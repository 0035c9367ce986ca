"""Runs a study for the commands that train: warnings, progress, signals and failures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from suite.cli.options import command_line
from suite.cli.signals import exit_if_stopped, stopping
from suite.errors import WorkError

if TYPE_CHECKING:
    from suite.execution.options import Options
    from suite.spec import Experiment, Status
    from suite.store.trial import TrialState

NAMED = 5  # failed trials of one cause that a warning names


def run_study(experiment: Experiment, root: Path, name: str, options: Options, *, quiet: bool) -> Status:
    """Run a study to its end and show its progress on stderr.

    Args:
        experiment: What to run.
        root: The results directory.
        name: Name of the study.
        options: How to run it; `command` is filled in here.
        quiet: Show no progress.

    Returns:
        The last status of the study.

    Raises:
        InputError: The study cannot be run as asked.
        WorkError: The study failed, or all of its trials did.
        typer.Exit: The study was stopped.
    """
    from suite.cli import console
    from suite.data.folder import read_once
    from suite.execution.stop import Stop
    from suite.execution.sweep import sweep
    from suite.store.files import make_writable, on_network_disk
    from suite.store.study import StudyDir

    make_writable(root)
    if options.storage is None and (kind := on_network_disk(root)):
        console.err.print(
            f"warning: {root} is on a network disk ({kind}), where SQLite can lose data; "
            "consider --storage postgresql+psycopg://..."
        )
    command = command_line()
    if options.storage is not None:
        command = command.replace(options.storage, "STORAGE")  # the URL may hold a password
    stop = Stop()
    with contextlib.ExitStack() as context:
        context.enter_context(read_once())
        _prepare_pictures(experiment, options, resumed=StudyDir(root, name).study() is not None, quiet=quiet)
        context.enter_context(stopping(stop))
        progress = context.enter_context(console.sweep_progress(root, quiet=quiet))
        for status in sweep(experiment, root, study=name, options=replace(options, command=command), stop=stop):
            with contextlib.suppress(OSError):  # losing the terminal does not stop the work
                progress.update(status)
                if stop.reason:
                    progress.note(f"{stop.reason}: stopping at the next step; a second signal exits at once.")
                elif status.message and status.state == "running":
                    progress.note(f"note: {status.message}")
    exit_if_stopped(stop, "Continue with the same command and --resume.", quiet=quiet)
    return _successful(progress.last, root, name)


def run_finalists(root: Path, name: str, options: Options, *, quiet: bool) -> None:
    """Train the finalists of a study whose search is over, and show the progress on stderr.

    Raises:
        InputError: Another process trains them.
        WorkError: A training keeps losing its worker.
        typer.Exit: The training was stopped.
    """
    from suite.cli import console
    from suite.evaluation import finalists
    from suite.execution.stop import Stop
    from suite.store.study import StudyDir

    study, stop = StudyDir(root, name), Stop()
    options = replace(options, command=command_line())
    with stopping(stop), console.sweep_progress(study.path, quiet=quiet) as progress:
        for status in finalists.train(study, root, options, stop=stop):
            with contextlib.suppress(OSError):  # as in `run_study`
                progress.update(status)
                if stop.reason:
                    progress.note(f"{stop.reason}: stopping at the next step; a second signal exits at once.")
    exit_if_stopped(stop, "Continue with the same command and --resume.", quiet=quiet)


def announce_pictures(dataset: str, *, quiet: bool) -> None:
    """Say that a person's own pictures are read. To be called before the training code is imported, which takes
    seconds."""
    from suite.cli import console
    from suite.data.registry import is_own

    if is_own(dataset) and not quiet:
        console.err.print(f"reading pictures: {dataset.partition(':')[2]}", highlight=False, soft_wrap=True)


def _prepare_pictures(experiment: Experiment, options: Options, *, resumed: bool, quiet: bool) -> None:
    """Decode a person's own pictures, with a progress bar, and say what there is to know of them."""
    from suite.cli import console
    from suite.data.registry import is_own
    from suite.execution.plan import prepare_pictures

    if not is_own(experiment.dataset):
        return
    skip = options.skip_broken or resumed
    with console.picture_progress(quiet=quiet) as on_progress:
        notes = prepare_pictures(experiment, skip_broken=skip, on_progress=on_progress)
    if not quiet:
        for note in notes:
            console.err.print(f"note: {note}", highlight=False)


def _successful(last: Status | None, root: Path, name: str) -> Status:
    """The last status, if the study succeeded; where only some trials failed, stderr says why. Raises WorkError
    otherwise."""
    from suite.store.study import StudyDir

    if last is None or last.state == "failed":
        why = last.message if last else "nothing ran"
        raise WorkError(f"Study '{name}' stopped early: {why.rstrip('.')}.")
    if last.failed and not last.finished:
        raise WorkError(f"Every trial of study '{name}' failed: {first_reason(root, name)}.")
    if last.failed:
        warn_of_failures(StudyDir(root, name).states())
    return last


def warn_of_failures(states: Iterable[TrialState]) -> None:
    """Say on stderr why trials failed, a line a cause: a warning, so that it is said with --quiet too."""
    from suite.cli import console
    from suite.execution.failures import cause

    failed = [state for state in states if state.state == "failed"]
    causes: dict[str, list[TrialState]] = {}
    for state in failed:
        causes.setdefault(cause(state.reason), []).append(state)
    for alike in causes.values():
        ids = ", ".join(state.id[:4] for state in alike[:NAMED]) + (", ..." if len(alike) > NAMED else "")
        arms = ", ".join(dict.fromkeys(state.trial.arm for state in alike))
        number = "1 trial" if len(alike) == 1 else f"{len(alike)} trials"
        reason = (alike[0].reason or "no reason is known").rstrip(".")
        console.err.print(f"warning: {number} of {arms} failed ({ids}): {reason}.", soft_wrap=True)


def first_reason(root: Path, name: str) -> str:
    """Why the first trial that was pruned or failed ended so."""
    from suite.store.study import StudyDir

    reasons = (state.reason for state in StudyDir(root, name).states() if state.reason)
    return next(reasons, "no reason is known").rstrip(".")
