"""One study's directory, `results/<study>/`: its files, lock and stop request; finding studies and trials by name.

==========================  ===============  ===========================================================================
file                        writer           content
==========================  ===============  ===========================================================================
study.json                  controller       `spec.StudyFile`: the resolved experiment, versions, seeds, hashes of data
                                             and splits. Replaced by renaming, when the study begins or gets more
                                             trials.
optuna.db                   controller       the sampler's memory (SQLite in WAL mode, with optuna.db-wal and -shm
                                             beside it); none with an external --storage. Rebuilt from the trials if
                                             lost.
status.json                 controller       `spec.Status`: who it is, counts, estimated time left, and a heartbeat at
                                             least every few seconds. Replaced by renaming.
stop.request                anyone           exists: the controller is asked to stop cleanly. Works across hosts.
                                             Removed by the controller when it begins and when it ends.
notes.jsonl                 anyone           notes, tags and archive marks: one change a line, appended with one
                                             `write`; see `notes`.
shift.jsonl                 `evaluate`       accuracy on corrupted pictures: one measurement of one trial a line,
                                             appended with one `write`; see `ranking.shift`.
exports.jsonl               anyone           figures of the formats that trials were exported to; see `exports`.
controller.lock             controller       locked while a controller is at work; names it, for messages. Stays.
trials/<id>/                see `trial`      one directory for each trial.
final/                      `evaluate`       the final evaluation: trainings in the layout of a study, without a search;
                                             readings.jsonl and evaluation.json (`ranking.final`).
finalists/                  `sweep`          the best recipes of a search trained again with fresh seeds, in the layout
                                             of a study (`store.finalists`).
damaged/<id>/               controller       trials that could not be repaired, moved here.
==========================  ===============  ===========================================================================
"""

from __future__ import annotations

import fcntl  # not `filelock`: see `StudyDir.lock`
import gc
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from suite.errors import InputError
from suite.spec import NAME, Status, StudyFile
from suite.store.events import EventReader
from suite.store.files import check_name, read_model, remove_leftovers, sync_directory, write_atomic
from suite.store.finalists import winner
from suite.store.liveness import has_died, looked_at
from suite.store.trial import EVENTS, TrialDir, TrialState, read_record, read_trial

FINAL = "final"  # folder of the final evaluation

FINALISTS = "finalists"  # folder of the finalists' trainings

HOLDER_SECONDS = 2.0  # to wait for the name of a controller that has just taken the lock


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector while many objects that stay are made: it would traverse them repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StudyDir:
    """Reads and writes one study's directory, which need not exist yet. Raises InputError for a name that is no plain
    path component."""

    def __init__(self, results: Path, name: str) -> None:
        self.name = check_name(name, "Study")
        self.path = results / name
        self.trials_path = self.path / "trials"
        self.database = self.path / "optuna.db"
        self.status_path = self.path / "status.json"
        self.stop_path = self.path / "stop.request"

    def exists(self) -> bool:
        """Whether there is a study.json, damaged or not."""
        return (self.path / "study.json").exists()

    def study(self) -> StudyFile | None:
        """study.json; None where it is missing, damaged or of a newer version."""
        return read_model(self.path / "study.json", StudyFile)

    def status(self) -> Status | None:
        """status.json; None where it is missing, damaged or of a newer version."""
        return read_model(self.status_path, Status)

    def trial(self, trial_id: str) -> TrialDir:
        """Raises InputError for an id that is no plain path component."""
        return TrialDir(self.trials_path / check_name(trial_id, "Trial"))

    def trial_ids(self) -> list[str]:
        """The names of the trial directories, sorted."""
        try:
            with os.scandir(self.trials_path) as entries:
                return sorted(entry.name for entry in entries if re.fullmatch(NAME, entry.name) and entry.is_dir())
        except OSError:
            return []

    def trials(self) -> list[TrialDir]:
        return [TrialDir(self.trials_path / name) for name in self.trial_ids()]

    def states(self) -> list[TrialState]:
        """The states of all trials, by number. Directories whose trial.json does not fit them are left out."""
        states: list[TrialState] = []
        with gc_paused():
            for name in self.trial_ids():
                place = f"{self.trials_path}/{name}"
                trial = read_trial(place, name)
                if trial is None:
                    continue
                state = TrialState(name, trial)
                record = read_record(place, name)
                if record is None:
                    reader = EventReader(Path(place, EVENTS))
                    state.update(reader.poll())
                    state.bad_lines = reader.bad
                state.settle(record)
                states.append(state)
        return sorted(states, key=lambda s: s.trial.number)

    def request_stop(self, reason: str) -> None:
        """Ask this study's controller, on whatever host, to stop cleanly."""
        write_atomic(self.stop_path, reason + "\n")

    def live(self) -> Status | None:
        """The status of a controller that is at work, else None. May take `liveness.SIGN_SECONDS`."""
        (pulse,) = looked_at([self.status])
        return self.status() if pulse.life == "working" else None

    def live_elsewhere(self) -> Status | None:
        """The status of a controller on another host that has neither ended nor is known to have died, else None."""
        status = self.status()
        if status is None or status.state != "running" or status.host == socket.gethostname() or has_died(status):
            return None
        return status

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be this study's only controller. Raises InputError, naming the other one, where there is one already.

        The kernel releases the lock when the process ends, however it ends. On some network disks it only excludes
        processes of the same host; `live_elsewhere` finds those of other hosts.

        This is `flock` rather than the `filelock` package: the locked file itself names its holder, for the message;
        and where a disk cannot lock, `filelock` would use a marker file, which outlives a controller that is killed.
        """
        self.trials_path.mkdir(parents=True, exist_ok=True)
        sync_directory(self.path.parent)
        with open(self.path / "controller.lock", "a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                advice = f", stop it (`mnist-suite stop {self.name}`), or give this run another name with --study NAME"
                raise InputError(
                    f"Study '{self.name}' already has a controller: {_holder(file)}. Wait for it"
                    + (advice if self.exists() else " or end that process")  # of a final evaluation, for example
                    + "."
                ) from None
            except OSError as error:
                raise InputError(
                    f"{self.path} is on a disk that cannot lock files ({error.strerror}), so nothing would keep a "
                    "second controller out; take a results directory on another disk."
                ) from None
            with suppress(OSError):  # a full disk: the lock holds without its holder's name
                file.truncate(0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                file.write(f"pid {os.getpid()} on {socket.gethostname()}, since {since}".encode())
            remove_leftovers(self.path, "study.json", "status.json")
            yield


def _holder(file: IO[bytes]) -> str:
    """The name in a lock file, which its holder writes just after locking it."""
    end = time.monotonic() + HOLDER_SECONDS
    while True:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip()
        if holder or time.monotonic() > end:
            return holder or "another process"
        time.sleep(0.05)


def studies(results: Path) -> list[StudyDir]:
    """All studies below a results directory, by name."""
    try:
        names = sorted(entry.name for entry in os.scandir(results) if entry.is_dir())
    except OSError:
        return []
    found = [StudyDir(results, name) for name in names if re.fullmatch(NAME, name)]
    return [study for study in found if study.exists()]


def open_study(results: Path, name: str | None) -> StudyDir:
    """The study of that name; None: the one begun or extended last. Raises InputError where there is none."""
    if name is not None:
        study = StudyDir(results, name)
        if study.exists():
            return study
        known = ", ".join(s.name for s in studies(results))
        others = f"there is: {known}" if known else "it holds no study" if os.path.isdir(results) else "it is no folder"
        raise InputError(f"There is no study '{name}' in {results}; {others}.")
    newest = max(studies(results), key=lambda s: s.path.joinpath("study.json").stat().st_mtime, default=None)
    if newest is None:
        raise InputError(
            f"There are no studies in {results}. Start one with `mnist-suite sweep`, or say where to look "
            "with --results DIR."
        )
    return newest


def split_reference(reference: str) -> tuple[str, str | None]:
    """Study and trial of 'STUDY/TRIAL', or study and None of 'STUDY'."""
    study, _, trial = reference.strip("/").partition("/")
    return study, trial or None


def find_trial(study: StudyDir, wanted: str | None) -> TrialState:
    """The trial with that id, number or start of an id; None: the study's best one, see `finalists.winner`.

    The best one is not of strategy int8 where there are others: integers alone can be neither exported nor trained on.
    Raises InputError where there is none or more than one.
    """
    states = study.states()
    if wanted is None:
        again = repeats(study)
        best = winner([s for s in states if s.trial.strategy.kind != "int8"], again) or winner(states, again)
        if best is None:
            raise InputError(f"Study '{study.name}' has no finished trial yet ({len(states)} trials in all).")
        return best
    hits = [s for s in states if s.id.startswith(wanted) or str(s.trial.number) == wanted]
    exact = [s for s in hits if s.id == wanted or str(s.trial.number) == wanted]
    hits = exact or hits
    if len(hits) != 1:
        many = "more than one trial" if hits else "no trial"
        raise InputError(
            f"'{wanted}' names {many} of study '{study.name}'; `mnist-suite leaderboard {study.name}` lists them."
        )
    return hits[0]


def final_of(study: StudyDir) -> StudyDir:
    """The study below this one that holds its final evaluation."""
    return StudyDir(study.path, FINAL)


def finalists_of(study: StudyDir) -> StudyDir:
    """The study below this one that holds its finalists' trainings."""
    return StudyDir(study.path, FINALISTS)


def repeats(study: StudyDir) -> list[TrialState]:
    """The finalists' trainings; none while they are under way or were interrupted."""
    directory = finalists_of(study)
    status = directory.status()
    return directory.states() if status is not None and status.state == "done" else []


def arms(states: Iterable[TrialState]) -> list[str]:
    """The arms of these trials, in the order of their first trials."""
    return list(dict.fromkeys(s.trial.arm for s in states))
