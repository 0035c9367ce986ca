"""The results directory: the seam between whatever trains and whatever looks.

One writer a file. Whole files appear by rename; event logs grow by one `write()` a line. Readers never
write, tolerate a torn tail and never invent anything: what does not parse is counted and left out.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import hashlib
import json
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from suite.errors import InputError, WorkError
from suite.spec import NAME, UNHASHED, Event, Line, Progress, Record, Started, Status, StudyFile, Trial

SUMS = "SHA256SUMS"
MOST_BYTES = 2**28  # of a file that is read whole; a stranger's may claim to be as large as it likes
STALE_SECONDS = 60.0  # a writer silent for longer is shown as stale; never more than a label
State = Literal["waiting", "running", "stopped", "finished", "pruned", "failed"]
Model = TypeVar("Model", bound=BaseModel)


# --- names and places -----------------------------------------------------------------------------------


def check_name(name: str, what: str) -> str:
    """Refuse a name that is not a plain path component. Raises InputError."""
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"{what} name {name[:80]!r} cannot be used: take letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, 80 characters at most."
        )
    return name


def results_dir(path: str | Path | None = None) -> Path:
    """The results directory: the argument, else $MNIST_SUITE_RESULTS, else ./results."""
    return Path(path or os.environ.get("MNIST_SUITE_RESULTS") or "results").expanduser().absolute()


def make_writable(path: Path) -> Path:
    """Create a directory and show that files can be made in it. Raises InputError."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_directory(path.parent)
        probe = path / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno in DISK_FAULTS:
            raise WorkError(disk_fault(error)) from None
        raise InputError(
            f"Cannot write to {path}: {error.strerror or error}. Choose another place with --results DIR "
            "or MNIST_SUITE_RESULTS, or mend its permissions."
        ) from None
    return path


def on_network_disk(path: Path) -> str | None:
    """The file system's type if SQLite's write-ahead log cannot be trusted on it, else None."""
    import psutil

    path = path.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    if not mounts:
        return None
    kind = max(mounts, key=lambda p: len(p.mountpoint)).fstype
    return kind if re.match(r"(nfs|cifs|smb|fuse\.|lustre|gpfs|beegfs|ceph|glusterfs|9p|afs)", kind) else None


# --- whole files -------------------------------------------------------------------------------------------

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of the place, never of the work


def disk_fault(error: OSError) -> str:
    """One sentence for a place that can no longer be written to, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror or error}{where}. Nothing that was committed is lost: mend that, for example by freeing "
        "space, and go on with the same command and --resume."
    )


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` as one step: readers see the old file or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def sweep_up(directory: Path, *names: str) -> None:
    """Remove what writers that were killed left unrenamed of these files; only their one writer may do so."""
    for name in names:
        for leftover in directory.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def write_model(path: Path, model: BaseModel, *, durable: bool = True) -> None:
    write_atomic(path, model.model_dump_json(indent=1) + "\n", durable=durable)


def open_plain(path: Path | str) -> int:
    """A descriptor for reading. Raises OSError for what is no plain file: a pipe or a device is read for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is no plain file", str(path))
    return handle


def read_bytes(path: Path | str) -> bytes:
    """A small file's content by as few system calls as it takes: there are tens of thousands of them."""
    handle = open_plain(path)
    try:
        if os.fstat(handle).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        parts: list[bytes] = []
        while part := os.read(handle, 65_536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def read_model(path: Path | str, kind: type[Model]) -> Model | None:
    """The file's content, or None where it is missing, damaged or of a newer schema."""
    try:
        return kind.model_validate_json(read_bytes(path))
    except (OSError, ValidationError, ValueError, RecursionError):
        return None


# --- event logs ----------------------------------------------------------------------------------------------


class EventWriter:
    """Appends lines to one events.jsonl; a torn tail of an earlier writer is closed off first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        reader = EventReader(path)
        lines = reader.poll()
        if os.fstat(self._handle).st_size > reader.offset:
            os.write(self._handle, b"\n")
            lines += reader.poll()  # the tail may have lacked nothing but its end of line
        self.seq = lines[-1].seq + 1 if lines else 0

    def append(self, event: Event) -> Line:
        line = Line(seq=self.seq, time=time.time(), event=event)
        data = (line.model_dump_json() + "\n").encode()
        if os.write(self._handle, data) != len(data):  # the next writer closes the torn line off
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.seq += 1
        return line

    def close(self) -> None:
        os.close(self._handle)


@dataclass
class EventReader:
    """Reads what is new in one events.jsonl. Keeps (inode, offset); starts over when the file was replaced."""

    path: Path
    offset: int = 0
    inode: int = 0
    bad: int = 0  # lines that did not parse

    def poll(self) -> list[Line]:
        try:
            with open(open_plain(self.path), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.inode or status.st_size < self.offset:
                    self.inode, self.offset, self.bad = status.st_ino, 0, 0
                if status.st_size == self.offset:
                    return []
                file.seek(self.offset)
                data = file.read()
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self.offset += end
        lines: list[Line] = []
        for raw in data[:end].splitlines():
            if not raw.strip():
                continue
            try:
                lines.append(Line.model_validate_json(raw))
            except (ValidationError, ValueError, RecursionError):
                self.bad += 1
        return lines


# --- one trial ---------------------------------------------------------------------------------------------------


class TrialDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def create(self, trial: Trial) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_model(self.path / "trial.json", trial)
        sync_directory(self.path.parent)

    def trial(self) -> Trial | None:
        return read_model(f"{self.path}/trial.json", Trial)

    def record(self) -> Record | None:
        return read_model(f"{self.path}/result.json", Record)

    def sound(self) -> bool:
        """Whether trial.json is whole and the one that the directory was named after.

        The name ends in a hash of the file as it was written, so this finds every changed figure in it.
        """
        try:
            facts = json.loads(read_bytes(self.path / "trial.json"))
            for key in UNHASHED:
                facts.pop(key, None)
            digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return False
        trial = self.trial()
        return trial is not None and self.id == f"{trial.number:04d}-{digest}"

    def commit(self, record: Record, since: int = 0) -> bool:
        """Write result.json, unless a later attempt has taken over. Says whether it was written.

        `since` is the sequence number with which the record's own attempt began: it may end before it starts.
        """
        if self.overtaken(record.attempt, since):
            return False
        self.conclude(record)
        return True

    def overtaken(self, attempt: str, since: int) -> bool:
        """Whether another process has taken the trial up after `attempt`, as one on another host may."""
        lines = EventReader(self.events).poll()
        starts = [line.event for line in lines if isinstance(line.event, Started) and line.seq >= since]
        return bool(starts) and starts[-1].attempt != attempt

    def conclude(self, record: Record) -> None:
        """Write result.json, and before it SHA256SUMS: `sha256sum -c` shows what changed since."""
        text = record.model_dump_json(indent=1) + "\n"
        sums = {"result.json": hashlib.sha256(text.encode()).hexdigest()}
        for name in ("trial.json", "validation.json"):
            with suppress(OSError):
                sums[name] = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        if record.artifact is not None and record.artifact_sha256 is not None:
            sums[record.artifact] = record.artifact_sha256
        write_atomic(self.path / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
        write_atomic(self.path / "result.json", text)

    def sums(self) -> dict[str, str]:
        """SHA-256 of the trial's files as they were when it ended; empty where that is not known."""
        try:
            lines = read_bytes(self.path / SUMS).decode().splitlines()
        except (OSError, ValueError):
            return {}
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def named_after(name: str, trial: Trial) -> bool:
    """Whether a directory's name has the form of this trial's id, as that of a copy by hand has not."""
    number, _, digest = name.partition("-")
    return number == f"{trial.number:04d}" and re.fullmatch("[0-9a-f]{8}", digest) is not None


@dataclass
class TrialState:
    """What the files say of one trial. Grows by `update`; cheap to keep for thousands of trials."""

    id: str  # the directory's name
    trial: Trial
    state: State = "waiting"
    record: Record | None = None
    started: Started | None = None
    progress: Progress | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    reason: str | None = None
    last: float = 0.0  # time of the newest event, seconds since 1970
    bad_lines: int = 0

    @property
    def best(self) -> float | None:
        if self.record and self.record.accuracy is not None:
            return self.record.accuracy
        return max((accuracy for _, accuracy in self.curve), default=None)

    def update(self, lines: list[Line]) -> None:
        for line in lines:
            event = line.event
            self.last = max(self.last, line.time)
            match event.kind:
                case "started":
                    self.started, self.state, self.reason = event, "running", None
                    # a resumed attempt repeats what came after its checkpoint
                    epoch = self._epoch_at(event.step)
                    self.curve = [point for point in self.curve if point[0] <= epoch]
                case "progress":
                    self.progress = event
                case "evaluated":
                    self.curve.append((event.epoch, event.accuracy))
                    self._steps[event.epoch] = event.step
                case "stopped":
                    self.state, self.reason = "stopped", event.reason
                case "pruned" | "failed":
                    self.state, self.reason = event.kind, event.reason
                case "finished":
                    self.state = "finished"
                case "checkpointed":
                    pass

    _steps: dict[float, int] = field(default_factory=dict, repr=False)

    def _epoch_at(self, step: int) -> float:
        return max((epoch for epoch, reached in self._steps.items() if reached <= step), default=0.0)

    def settle(self, record: Record | None) -> None:
        """result.json is the commit marker: it alone makes a trial finished, pruned or failed."""
        if record is not None:
            self.record, self.state, self.reason = record, record.state, record.reason
            self.curve = list(record.curve)
            self.last = max(self.last, record.ended)
        elif self.state in ("finished", "pruned", "failed"):
            self.state = "running"  # its last act, writing the result, has not happened yet


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


# --- one study -----------------------------------------------------------------------------------------------------


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


def dump_json(value: object) -> str:
    """JSON for scripts: plain, two spaces, NaN refused."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
