"""The directory of one study: files, lock, stop request, look-up by name."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from suite.errors import InputError
from suite.spec import NAME, Record, Status, StudyFile, Trial
from suite.store.events import EventReader
from suite.store.files import check_name, read_model, sweep_up, sync_directory, write_atomic
from suite.store.trial import TrialDir, TrialState, named_after

STALE_SECONDS = 60.0  # a writer silent for longer is shown as stale; never more than a label


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects that stay, without the cycle collector going through all of them time and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _runs(pid: int) -> bool:
    """Whether a process of this host is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


class StudyDir:
    def __init__(self, results: Path, name: str) -> None:
        self.name = check_name(name, "Study")
        self.path = results / name
        self.trials_path = self.path / "trials"
        self.database = self.path / "optuna.db"
        self.status_path = self.path / "status.json"
        self.stop_path = self.path / "stop.request"

    def exists(self) -> bool:
        return (self.path / "study.json").exists()

    def study(self) -> StudyFile | None:
        return read_model(self.path / "study.json", StudyFile)

    def status(self) -> Status | None:
        return read_model(self.status_path, Status)

    def trial(self, trial_id: str) -> TrialDir:
        return TrialDir(self.trials_path / check_name(trial_id, "Trial"))

    def trial_ids(self) -> list[str]:
        """The names of the trial directories, in order."""
        try:
            with os.scandir(self.trials_path) as entries:
                return sorted(entry.name for entry in entries if re.fullmatch(NAME, entry.name) and entry.is_dir())
        except OSError:
            return []

    def trials(self) -> list[TrialDir]:
        return [TrialDir(self.trials_path / name) for name in self.trial_ids()]

    def states(self) -> list[TrialState]:
        """All trials as the files tell, in the order of their numbers."""
        states: list[TrialState] = []
        with uncollected():
            for name in self.trial_ids():
                place = f"{self.trials_path}/{name}"  # paths of pathlib cost more than what is read
                trial = read_model(f"{place}/trial.json", Trial)
                if trial is None or not named_after(name, trial):
                    continue
                state = TrialState(name, trial)
                record = read_model(f"{place}/result.json", Record)
                if record is not None and record.trial != name:
                    record = None  # a copy from elsewhere: it is counted there
                if record is None:
                    reader = EventReader(Path(place, "events.jsonl"))
                    state.update(reader.poll())
                    state.bad_lines = reader.bad
                state.settle(record)
                states.append(state)
        return sorted(states, key=lambda s: s.trial.number)

    def request_stop(self, reason: str) -> None:
        write_atomic(self.stop_path, reason + "\n")

    def live(self) -> Status | None:
        """The status of a controller that showed a sign of life within STALE_SECONDS."""
        status = self.status()
        fresh = status is not None and time.time() - status.heartbeat < STALE_SECONDS
        if status is None or status.state != "running" or not fresh:
            return None
        return status if status.host != socket.gethostname() or _runs(status.pid) else None

    def elsewhere(self) -> Status | None:
        """`live`, if it is on another host."""
        status = self.live()
        return status if status is not None and status.host != socket.gethostname() else None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be this study's one controller. The lock falls with the process, however it ends. Raises InputError.

        On some network disks a lock keeps out processes of this host alone; `elsewhere` tells of the others.
        """
        self.trials_path.mkdir(parents=True, exist_ok=True)
        sync_directory(self.path.parent)
        with open(self.path / "controller.lock", "a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = ""
                for _ in range(40):  # it may have taken the lock this very moment, and still be writing its name
                    file.seek(0)
                    holder = file.read().decode(errors="replace").strip()
                    if holder:
                        break
                    time.sleep(0.05)
                holder = holder or "another process"
                advice = f", stop it (`mnist-suite stop {self.name}`), or give this run another name with --study NAME"
                raise InputError(
                    f"Study '{self.name}' already has a controller: {holder}. Wait for it"
                    + (advice if self.exists() else " or end that process")  # of a final evaluation, for example
                    + "."
                ) from None
            except OSError as error:
                raise InputError(
                    f"{self.path} is on a disk that cannot lock files ({error.strerror}), so nothing would keep a "
                    "second controller out; take a results directory on another disk."
                ) from None
            with suppress(OSError):  # a full disk: the lock holds without a word of who has it
                file.truncate(0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                file.write(f"pid {os.getpid()} on {socket.gethostname()}, since {since}".encode())
            sweep_up(self.path, "study.json", "status.json")
            yield


def studies(results: Path) -> list[StudyDir]:
    """All studies below a results directory, by name."""
    try:
        names = sorted(entry.name for entry in os.scandir(results) if entry.is_dir())
    except OSError:
        return []
    found = [StudyDir(results, name) for name in names if re.fullmatch(NAME, name)]
    return [study for study in found if study.exists()]


def open_study(results: Path, name: str | None) -> StudyDir:
    """The named study, or the newest one. Raises InputError where there is none."""
    if name is not None:
        study = StudyDir(results, name)
        if study.exists():
            return study
        known = ", ".join(s.name for s in studies(results)) or "none"
        raise InputError(f"There is no study '{name}' in {results}; there is: {known}.")
    newest = max(studies(results), key=lambda s: s.path.joinpath("study.json").stat().st_mtime, default=None)
    if newest is None:
        raise InputError(
            f"There are no studies in {results}. Start one with `mnist-suite sweep`, or say where to look "
            "with --results DIR."
        )
    return newest


def split_reference(reference: str) -> tuple[str, str | None]:
    """'STUDY' or 'STUDY/TRIAL'."""
    study, _, trial = reference.strip("/").partition("/")
    return study, trial or None


def find_trial(study: StudyDir, wanted: str | None) -> TrialState:
    """The trial by id, by number or by the start of its id; None: the best finished one. Raises InputError."""
    states = study.states()
    if wanted is None:
        finished = [s for s in states if s.state == "finished" and s.best is not None]
        if not finished:
            raise InputError(f"Study '{study.name}' has no finished trial yet ({len(states)} trials in all).")
        return max(finished, key=lambda s: (s.best or 0.0, -s.trial.number))
    hits = [s for s in states if s.id.startswith(wanted) or str(s.trial.number) == wanted]
    exact = [s for s in hits if s.id == wanted or str(s.trial.number) == wanted]
    hits = exact or hits
    if len(hits) != 1:
        many = "more than one trial" if hits else "no trial"
        raise InputError(
            f"'{wanted}' names {many} of study '{study.name}'; `mnist-suite leaderboard {study.name}` lists them."
        )
    return hits[0]


FINAL = "final"  # folder below a study that holds its final training


def final_of(study: StudyDir) -> StudyDir:
    """Where a study's final training lies."""
    return StudyDir(study.path, FINAL)


def arms(states: Iterable[TrialState]) -> list[str]:
    """In the order of their first trial."""
    return list(dict.fromkeys(s.trial.arm for s in states))
