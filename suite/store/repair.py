"""Finding what is damaged in a study's files, and setting it aside. Nothing is deleted: damaged files are renamed.

Reads files only, without torch or optuna. A controller that resumes a study repairs by itself what it needs for going
on; `mnist-suite doctor STUDY` reads more, every model included, and reports what it found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from suite.spec import SCHEMA, Record
from suite.store.events import EventReader
from suite.store.files import file_sha256, read_bytes, read_model
from suite.store.study import FINAL, FINALISTS, StudyDir, final_of, finalists_of
from suite.store.trial import RESULT, TRIAL, TrialDir

DATABASE_SUFFIXES = ("", "-wal", "-shm")

HASHED = (RESULT, TRIAL, "validation.json")  # what SHA256SUMS may name besides the weights

SETTLED = 1.0  # seconds after which what a running study was just writing is complete


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    place: str  # path below the study
    what: str
    remedy: str  # what `mend` does, or the next controller by itself


def set_aside(path: Path) -> Path:
    """Rename a damaged file, keeping those that were set aside before; returns its new path."""
    kept = unused_path(path.with_name(f"{path.name}.damaged"))
    os.replace(path, kept)
    return kept


def move_to_damaged(study: StudyDir, trial: TrialDir) -> Path:
    """Move a trial that cannot be used from `trials` to `damaged`; returns its new path."""
    folder = study.path / "damaged"
    folder.mkdir(exist_ok=True)
    kept = unused_path(folder / trial.id)
    os.replace(trial.path, kept)
    return kept


def unused_path(path: Path) -> Path:
    """The path, or with .2, .3 and so on appended where it exists."""
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def newer(path: Path) -> bool:
    """Whether a file is JSON of a later schema version than this program knows."""
    try:
        return json.loads(read_bytes(path))["schema_version"] > SCHEMA
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False


def result_fault(directory: TrialDir) -> str | None:
    """What is wrong with a trial's result.json; None where nothing is, or there is none yet."""
    path = directory.result
    if not path.exists():
        return None
    record = read_model(path, Record)
    if record is None:
        return "was written by a newer version" if newer(path) else "is damaged"
    if (sum_then := directory.sums().get(RESULT)) is not None and sum_then != file_sha256(path):
        return "is not as it was written: its SHA-256 differs"
    if (fault := _sums_fault(directory, record)) is not None:
        return fault
    trial = directory.trial()
    if record.trial != directory.id or (trial is not None and record.arm != trial.arm):
        return f"speaks of trial {record.trial}"
    best = max((accuracy for _, accuracy in record.curve), default=None)
    if record.state == "finished" and (record.accuracy is None or record.accuracy not in (best, record.accuracy_fp32)):
        return f"says accuracy {record.accuracy}, its curve says {best}"
    return None


def _sums_fault(directory: TrialDir, record: Record) -> str | None:
    """Whether SHA256SUMS and the files disagree.

    Which of them is damaged cannot be told. Running the trial again settles it, with the same outcome.
    """
    for name, digest in directory.sums().items():
        if name == TRIAL and not directory.sound():
            continue  # reported by itself
        if name == record.artifact:
            right = digest == record.artifact_sha256  # the weights themselves are read by `examine` alone
        else:
            right = (
                name in HASHED and (directory.path / name).is_file() and digest == file_sha256(directory.path / name)
            )
        if not right:
            return f"and SHA256SUMS do not agree on {name[:40]!r}"
    return None


def examine(study: StudyDir) -> list[Finding]:
    """Everything that is wrong with a study's files. Reads every model, writes nothing.

    Of a running study, only what is still wrong SETTLED seconds later.
    """
    found = _examine_once(study)
    if found and study.live():
        time.sleep(SETTLED)
        again = _examine_once(study)
        found = [finding for finding in found if finding in again]
    return found


def _examine_once(study: StudyDir) -> list[Finding]:
    found: list[Finding] = []
    if study.study() is None:
        later = newer(study.path / "study.json")
        found.append(
            Finding(
                "study.json",
                "was written by a newer version" if later else "is damaged or gone",
                "use that version" if later else "`mnist-suite sweep EXPERIMENT --resume` writes it anew",
            )
        )
    if study.status_path.exists() and study.status() is None:
        found.append(Finding("status.json", "is damaged", "the next controller writes it anew"))
    found += _examine_database(study)
    for directory in study.trials():
        found += _examine_trial(directory, f"trials/{directory.id}", "the trial runs again with --resume")
    for directory in finalists_of(study).trials():
        found += _examine_trial(directory, f"{FINALISTS}/trials/{directory.id}", "it is trained again with --resume")
    for directory in final_of(study).trials():
        found += _examine_trial(directory, f"{FINAL}/trials/{directory.id}", "`evaluate --final` trains it again")
    return found


def _examine_database(study: StudyDir) -> list[Finding]:
    if not study.database.exists():
        return []  # external, or to be rebuilt from the trials
    if study.live():  # a copy could be inconsistent, and reading beside the writer changes nothing
        answer = _check_database(f"file:{quote(str(study.database))}?mode=ro")
    else:
        answer = _check_copy(study)
    if answer == "ok" or (answer.startswith("no such table") and not study.trials()):  # it is being created
        return []
    remedy = "set aside; the next controller rebuilds it from the trials"
    return [Finding("optuna.db", f"is damaged ({answer.splitlines()[0]})", remedy)]


def _check_copy(study: StudyDir) -> str:
    """`_check_database` of a copy: SQLite writes beside a database that it only reads."""
    with tempfile.TemporaryDirectory() as copy:
        for suffix in ("", "-wal"):
            part = study.database.with_name(study.database.name + suffix)
            if part.exists():
                shutil.copyfile(part, Path(copy) / part.name)
        return _check_database(f"file:{quote(copy)}/{study.database.name}")


def _check_database(uri: str) -> str:
    """'ok', or what SQLite says is wrong."""
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
            answer = str(connection.execute("PRAGMA quick_check").fetchone()[0])
            connection.execute("select count(*) from trials").fetchone()
    except sqlite3.Error as error:
        return str(error) or type(error).__name__
    return answer


def _examine_trial(directory: TrialDir, place: str, then: str) -> list[Finding]:
    """`place` is the trial's path below the study, `then` what happens once its result was set aside."""
    found: list[Finding] = []
    if not directory.sound() and newer(directory.path / TRIAL):
        found.append(Finding(f"{place}/{TRIAL}", "was written by a newer version", "use that version"))
    elif not directory.sound():
        remedy = "`mnist-suite sweep EXPERIMENT --resume` writes it anew from optuna.db, or sets the trial aside"
        found.append(Finding(f"{place}/{TRIAL}", "is damaged or not this trial's", remedy))
    reader = EventReader(directory.events)
    accuracies = {line.event.accuracy for line in reader.poll() if line.event.kind == "evaluated"}
    for fault in _result_faults(directory, accuracies):
        later = newer(directory.result)
        found.append(Finding(f"{place}/{RESULT}", fault, "use that version" if later else f"set aside; {then}"))
    if reader.bad:
        found.append(Finding(f"{place}/events.jsonl", f"has {reader.bad} lines that do not parse", "readers skip them"))
    for leftover in directory.path.glob(".*.tmp"):
        found.append(Finding(f"{place}/{leftover.name}", "was never finished", "removed"))
    return found


def _result_faults(directory: TrialDir, accuracies: set[float]) -> list[str]:
    """`result_fault`; where it finds nothing, whether the weights and the log fit the result.

    `accuracies` are those of the log's evaluations.
    """
    if fault := result_fault(directory):
        return [fault]
    record = directory.record()
    if record is None or record.artifact is None:
        return []
    faults: list[str] = []
    path = directory.path / record.artifact
    if not path.is_file():
        faults.append(f"names {record.artifact}, which is gone")
    elif file_sha256(path) != record.artifact_sha256:
        faults.append(f"names {record.artifact}, which is damaged")
    if record.accuracy is not None and accuracies and record.accuracy not in accuracies | {record.accuracy_fp32}:
        faults.append("has an accuracy that its events lack")
    return faults


def mend(study: StudyDir, found: list[Finding]) -> list[Finding]:
    """Carry out the remedies that need files alone; returns the other findings. For the holder of the study's lock."""
    rest: list[Finding] = []
    for finding in found:
        path = study.path / finding.place
        if finding.remedy.startswith("set aside"):
            for part in [path.with_name(path.name + suffix) for suffix in DATABASE_SUFFIXES]:
                if part.exists():
                    set_aside(part)
        elif finding.remedy == "removed":
            path.unlink(missing_ok=True)
        else:
            rest.append(finding)
    return rest
