"""Deleting a study or a trial, so that it can be taken back: it is moved to results/.trash/.

Below `.trash` each deletion has a folder of its own, in which things lie as they lay in the results directory:
`.trash/20270131-120000-1a2b/mnist/trials/0003-abcdef12`. Nothing there is read by any command.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from suite.errors import InputError
from suite.store.events import EventReader
from suite.store.files import sync_directory
from suite.store.liveness import STALE_SECONDS
from suite.store.study import StudyDir, final_of, finalists_of
from suite.store.trial import TrialState

TRASH = ".trash"


@dataclass(frozen=True)
class Discarded:
    """What was moved to the trash."""

    place: Path  # where it was
    kept: Path  # where it is


def discard(results: Path, study: str, trial: str | None = None) -> Discarded:
    """Move a study, or one of its trials, to the trash. May take some seconds.

    Raises InputError where it does not exist or somebody is at work there, and OSError where it cannot be moved.
    """
    directory = StudyDir(results, study)
    place = directory.trial(trial).path if trial else directory.path
    if not place.is_dir():
        raise InputError(f"There is no {study}{f'/{trial}' if trial else ''} in {results} (any more).")
    with at_rest(directory):
        kept = results / TRASH / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}" / place.relative_to(results)
        kept.parent.mkdir(parents=True)
        _move(place, kept)
    return Discarded(place, kept)


def restore(found: Discarded) -> None:
    """Move back what was discarded. Raises InputError where something else has taken its place, and OSError."""
    place, kept = found.place, found.kept
    if not kept.exists():
        raise InputError(f"{kept} is not there any more.")
    if not place.parent.is_dir():
        raise InputError(f"{kept} cannot go back: there is no {place.parent} any more.")
    number = place.name.partition("-")[0]
    if place.exists() or (place.parent.name == "trials" and any(place.parent.glob(f"{number}-*"))):
        raise InputError(f"{kept} cannot go back: another one has taken its place in {place.parent}.")
    _move(kept, place)
    for folder in kept.parents:
        if folder.name == TRASH:
            break
        with suppress(OSError):  # other things lie there
            folder.rmdir()


@contextmanager
def at_rest(study: StudyDir) -> Iterator[None]:
    """Nobody writes to the study, and within the context no controller can begin to. Raises InputError, and OSError."""
    busy = f"Study '{study.name}' is at work, so nothing of it can be moved: stop it first (`mnist-suite stop`)"
    with ExitStack() as stack:
        for part in (study, final_of(study), finalists_of(study)):
            if not part.path.is_dir():
                continue
            if status := part.live():
                raise InputError(f"{busy}; it is pid {status.pid} on {status.host}.")
            try:
                stack.enter_context(part.lock())
            except InputError:
                raise InputError(f"{busy}; another process holds {part.path / 'controller.lock'}.") from None
            if worker := _worker(part):
                raise InputError(f"{busy}; its trial {worker} was written to within the last minute.")
        yield


def _worker(study: StudyDir) -> str | None:
    """A trial whose attempt has not ended and wrote something within the last `STALE_SECONDS`: its worker may have
    outlived the controller."""
    for place in study.trials():
        with suppress(OSError):
            recent = time.time() - place.events.stat().st_mtime < STALE_SECONDS
            if recent and not place.result.exists() and (trial := place.trial()) is not None:
                state = TrialState(place.id, trial)
                state.update(EventReader(place.events).poll())
                if state.state == "running":
                    return place.id
    return None


def _move(place: Path, to: Path) -> None:
    os.rename(place, to)  # `shutil.move` would copy to another disk, file by file
    sync_directory(to.parent)
    sync_directory(place.parent)
