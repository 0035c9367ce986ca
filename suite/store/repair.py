"""What can be wrong with a study's files, and what is done about it. Nothing is deleted: damaged files are renamed.

Needs neither torch nor optuna: it looks at files alone. A controller that resumes does by itself what matters for
going on; `mnist-suite doctor STUDY` looks deeper, at every model, and says what it found.
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

from suite.spec import SCHEMA, Line, Record
from suite.store.events import EventReader
from suite.store.files import file_sha256, read_bytes
from suite.store.study import FINAL, StudyDir, final_of
from suite.store.trial import TrialDir

DATABASE_FILES = ("", "-wal", "-shm")

SUMMED = ("result.json", "trial.json", "validation.json")  # besides the weights

SETTLED = 1.0  # seconds after which what a live study was just writing is whole


@dataclass(frozen=True)
class Finding:
    place: str  # below the study
    what: str
    remedy: str  # what --repair does, or the next controller by itself


def aside(path: Path) -> Path:
    """Rename a damaged file out of the way, keeping it."""
    kept = path.with_name(f"{path.name}.damaged")
    os.replace(path, kept)
    return kept


def put_away(study: StudyDir, trial: TrialDir) -> Path:
    """Move a trial that cannot be used out of `trials`, keeping it."""
    folder = study.path / "damaged"
    folder.mkdir(exist_ok=True)
    kept = folder / trial.id
    number = 1
    while kept.exists():
        number += 1
        kept = folder / f"{trial.id}.{number}"
    os.replace(trial.path, kept)
    return kept


def newer(path: Path) -> bool:
    """Whether a file that cannot be read is whole, and of a later schema than this version knows."""
    try:
        return json.loads(read_bytes(path))["schema_version"] > SCHEMA
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False


def result_fault(directory: TrialDir) -> str | None:
    """What is wrong with a trial's result.json, None where nothing is or there is none yet."""
    path = directory.path / "result.json"
    if not path.exists():
        return None
    record = directory.record()
    if record is None:
        return "was written by a newer version" if newer(path) else "is damaged"
    if (sum_then := directory.sums().get("result.json")) is not None and sum_then != file_sha256(path):
        return "is not as it was written: its SHA-256 differs"
    if (fault := _sums_fault(directory, record)) is not None:
        return fault
    trial = directory.trial()
    if record.trial != directory.id or (trial is not None and record.arm != trial.arm):
        return f"speaks of trial {record.trial}"
    best = max((accuracy for _, accuracy in record.curve), default=None)
    if record.state == "finished" and (record.accuracy is None or record.accuracy != best):
        return f"says accuracy {record.accuracy}, its curve says {best}"
    return None


def _sums_fault(directory: TrialDir, record: Record) -> str | None:
    """Whether SHA256SUMS is damaged or says of any file what is not so. Which of the two is wrong cannot be told: that
    the trial runs again, and comes to the same, settles it."""
    for name, digest in directory.sums().items():
        if name == "trial.json" and not directory.sound():
            continue  # a matter of its own
        if name == record.artifact:
            right = digest == record.artifact_sha256  # the weights themselves are read by `doctor` alone
        else:
            right = (
                name in SUMMED and (directory.path / name).is_file() and digest == file_sha256(directory.path / name)
            )
        if not right:
            return f"and SHA256SUMS do not agree on {name[:40]!r}"
    return None


def examine(study: StudyDir) -> list[Finding]:
    """Everything that is wrong with a study's files; reads every model once, writes nothing."""
    found = _look(study)
    if found and study.live():
        time.sleep(SETTLED)
        again = _look(study)
        found = [finding for finding in found if finding in again]
    return found


def _look(study: StudyDir) -> list[Finding]:
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
    found += _database(study)
    for directory in study.trials():
        found += _trial(directory, f"trials/{directory.id}", "the trial runs again with --resume")
    for directory in final_of(study).trials():
        found += _trial(directory, f"{FINAL}/trials/{directory.id}", "`evaluate --final` trains it again")
    return found


def _database(study: StudyDir) -> list[Finding]:
    if not study.database.exists():
        return []  # kept elsewhere, or rebuilt from the trials
    if study.live():  # a copy would tear it; a reader beside its writer changes nothing
        answer = _soundness(f"file:{quote(str(study.database))}?mode=ro")
    else:
        answer = _soundness_of_a_copy(study)
    if answer == "ok" or (answer.startswith("no such table") and not study.trials()):  # it is just being made
        return []
    remedy = "set aside; the next controller rebuilds it from the trials"
    return [Finding("optuna.db", f"is damaged ({answer.splitlines()[0]})", remedy)]


def _soundness_of_a_copy(study: StudyDir) -> str:
    with tempfile.TemporaryDirectory() as copy:  # SQLite writes beside a database that it only reads
        for suffix in ("", "-wal"):
            part = study.database.with_name(study.database.name + suffix)
            if part.exists():
                shutil.copyfile(part, Path(copy) / part.name)
        return _soundness(f"file:{quote(copy)}/{study.database.name}")


def _soundness(uri: str) -> str:
    """'ok', or what SQLite says is wrong."""
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60)) as connection:
            answer = str(connection.execute("PRAGMA quick_check").fetchone()[0])
            connection.execute("select count(*) from trials").fetchone()
    except sqlite3.Error as error:
        return str(error) or type(error).__name__
    return answer


def _trial(directory: TrialDir, place: str, then: str) -> list[Finding]:
    found: list[Finding] = []
    if not directory.sound() and newer(directory.path / "trial.json"):
        found.append(Finding(f"{place}/trial.json", "was written by a newer version", "use that version"))
    elif not directory.sound():
        remedy = "`mnist-suite sweep EXPERIMENT --resume` writes it anew from optuna.db, or sets the trial aside"
        found.append(Finding(f"{place}/trial.json", "is damaged or not this trial's", remedy))
    again = f"set aside; {then}"
    if fault := result_fault(directory):
        later = newer(directory.path / "result.json")
        found.append(Finding(f"{place}/result.json", fault, "use that version" if later else again))
    elif (record := directory.record()) is not None and record.artifact is not None:
        path = directory.path / record.artifact
        if not path.is_file():
            found.append(Finding(f"{place}/result.json", f"names {record.artifact}, which is gone", again))
        elif file_sha256(path) != record.artifact_sha256:
            found.append(Finding(f"{place}/result.json", f"names {record.artifact}, which is damaged", again))
        evaluated = {line.event.accuracy for line in _lines(directory) if line.event.kind == "evaluated"}
        if record.accuracy is not None and evaluated and record.accuracy not in evaluated:
            found.append(Finding(f"{place}/result.json", "has an accuracy that its events lack", again))
    reader = EventReader(directory.events)
    reader.poll()
    if reader.bad:
        found.append(Finding(f"{place}/events.jsonl", f"has {reader.bad} lines that do not parse", "readers skip them"))
    for leftover in directory.path.glob(".*.tmp"):
        found.append(Finding(f"{place}/{leftover.name}", "was never finished", "removed"))
    return found


def _lines(directory: TrialDir) -> list[Line]:
    return EventReader(directory.events).poll()


def mend(study: StudyDir, found: list[Finding]) -> list[Finding]:
    """Do what the findings' remedies say, as far as files alone allow; the caller holds the study. Returns the rest."""
    rest: list[Finding] = []
    for finding in found:
        path = study.path / finding.place
        if finding.remedy.startswith("set aside"):
            for part in [path.with_name(path.name + suffix) for suffix in DATABASE_FILES]:
                if part.exists():
                    aside(part)
        elif finding.remedy == "removed":
            path.unlink(missing_ok=True)
        else:
            rest.append(finding)
    return rest
