"""Trials on a Ray cluster: an actor a slot, each running trials one after another, an event at a time.

The controller draws: every call to an actor brings the next event, so that a verdict is never under way on its own.
A node that sees the results directory writes there as a local worker does. One that does not works in a directory of
its own, and what has changed in it comes back with each event, for the controller to write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suite.errors import InputError, WorkError
from suite.execution.job import Job, Limits, Message, TimeLimit, awaits_verdict, console_to, events_of
from suite.execution.processes import POLITE, limit_memory
from suite.spec import Event, Verdict
from suite.store.events import EventReader
from suite.store.files import disk_fault, write_atomic
from suite.store.trial import TrialDir
from suite.training.checkpoint import INDEX

LOGS = ("events.jsonl", "console.log")  # grow at their end alone

COMMIT = "result.json"  # the last file to be written: it makes all the others count

OBJECT_STORE = 256 * 2**20  # bytes of shared memory of a cluster of our own: checkpoints pass through it

REACH_SECONDS = 10.0  # Ray itself would go on trying for minutes

PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # after which Ray ends this process, where the head node has gone

Files = dict[str, bytes | None]  # whole files, or what logs grew by; None: gone


# --- on the node ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """What an actor says of the place that it has come to."""

    host: str
    version: str
    shares: bool  # sees the results directory


@dataclass(frozen=True)
class Report:
    """One step of a trial: an event, or its end."""

    event: Event | None
    files: Files
    fault: str | None = None  # of the disk or the place, not of the trial
    sound: bool = True  # whether the process is fit for another trial


class Actor:
    """Runs trials on a node, each call on to its next event."""

    def __init__(self, limits: Limits) -> None:
        limit_memory(limits.memory)
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._stream: Any = None
        self._job: Job | None = None
        self._seen: dict[str, tuple[int, int]] = {}  # time and size of the files that the controller has

    def look(self, probe: str, content: str) -> Node:
        from suite.store.provenance import version

        try:
            shares = Path(probe).read_text() == content
        except OSError:
            shares = False
        return Node(socket.gethostname(), version(), shares)

    def begin(self, job: Job, given: Files | None) -> Report:
        """Take a trial up; `given` are its files so far and the weights it begins with, below the results directory,
        where this node does not see them."""
        if given is not None:
            self._own = self._own or tempfile.TemporaryDirectory(prefix="mnist-suite-")
            root = Path(self._own.name)
            directory = root / Path(job.directory).relative_to(job.results)
            if self._job is not None:
                shutil.rmtree(self._job.directory, ignore_errors=True)  # the controller has all that counts
            job = replace(job, directory=str(directory), results=str(root))
            for name, data in given.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data or b"")
            self._seen = {path.name: _stamp(path) for path in directory.iterdir()}
        self._job = job
        self._stream = events_of(job)
        return self.go_on(None)

    def go_on(self, verdict: Verdict | None) -> Report:
        from suite.training.trial import healthy, release

        job = self._job
        assert job is not None
        try:
            with console_to(Path(job.directory) / "console.log"):
                event = self._stream.send(verdict)
        except StopIteration:
            self._stream = None
            release()
            return Report(None, self._changed(job), sound=healthy())
        except WorkError as error:
            return Report(None, {}, fault=str(error))
        except OSError as error:
            return Report(None, {}, fault=disk_fault(error))
        return Report(event, self._changed(job))

    def _changed(self, job: Job) -> Files:
        """What the controller has to write: nothing where it sees for itself."""
        if self._own is None:
            return {}
        found: Files = {}
        there = {p.name: p for p in Path(job.directory).iterdir() if p.is_file() and not p.name.endswith(".tmp")}
        for name, path in there.items():
            stamp = _stamp(path)
            if self._seen.get(name) != stamp:
                with open(path, "rb") as file:
                    file.seek(self._seen.get(name, (0, 0))[1] if name in LOGS else 0)
                    found[name] = file.read()
                self._seen[name] = stamp
        for name in set(self._seen) - set(there):
            found[name] = None
            del self._seen[name]
        return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


# --- at the controller ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Slot:
    actor: Any
    pending: Any = None  # the call under way
    job: Job | None = None
    node: Node | None = None  # once it has come to a place
    since: int = 0  # the first event's number of this attempt
    spent: float = 0.0  # seconds on this job
    asks: bool = False  # stands still for an answer
    verdict: Verdict | None = None
    sent: set[str] = field(default_factory=set)  # weights that it has


class Cluster:
    """Trials on the Ray cluster of RAY_ADDRESS, or on one started here for the time. Raises InputError."""

    def __init__(self, workers: int, limits: Limits, device: str, results: Path) -> None:
        self.limits, self.results = limits, results
        self._patience = float(os.environ.get(PATIENCE, "60")) / 2
        self._slots: list[_Slot] = []
        self._arrivals = 0
        self._content = secrets.token_hex(16)
        self._probe = results / f".shared-{self._content[:8]}"  # who sees it sees the results directory
        self._ray = _connect()
        try:
            self.slots, self.threads, gpu = self._shares(workers, device)
        except InputError:
            self.close()
            raise
        self._kind = self._ray.remote(num_cpus=self.threads, num_gpus=gpu, max_restarts=0)(Actor)
        self._time = TimeLimit(limits.seconds)
        self._tried = self._heard = time.monotonic()
        self._head = self._ray.get_runtime_context().gcs_address
        write_atomic(self._probe, self._content)

    def _shares(self, workers: int, device: str) -> tuple[int, int, float]:
        """Trials at once, and CPUs and GPUs for each. Raises InputError."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes) if device != "cpu" else 0
        if device == "cuda" and not gpus:
            raise InputError("--device cuda: no node of the Ray cluster has a GPU to give; `ray status` lists them.")
        slots = workers or gpus or len(nodes)
        threads = _threads(cpus, slots)
        if not threads:
            raise InputError(f"--workers {slots}: the Ray cluster has {sum(cpus)} CPUs, and every trial needs one.")
        return slots, threads, min(1.0, gpus / slots)

    def free(self) -> int:
        return self.slots - sum(slot.job is not None for slot in self._slots)

    def submit(self, job: Job) -> None:
        slot = next((s for s in self._slots if s.job is None), None)
        if slot is None:
            actor = self._kind.remote(self.limits)
            slot = _Slot(actor, actor.look.remote(str(self._probe), self._content))
            self._slots.append(slot)
        slot.job, slot.asks, slot.verdict = job, False, None
        lines = EventReader(TrialDir(Path(job.directory)).events).poll()
        slot.since = lines[-1].seq + 1 if lines else 0
        if slot.node is not None:
            self._begin(slot, slot.node, job)

    def _begin(self, slot: _Slot, node: Node, job: Job) -> None:
        slot.spent = 0.0
        slot.pending = slot.actor.begin.remote(job, None if node.shares else self._given(slot, job))

    def _given(self, slot: _Slot, job: Job) -> Files:
        """What a node without the results directory needs of it."""
        paths = [path for path in Path(job.directory).iterdir() if path.is_file() and path.name != "console.log"]
        source = job.trial.weights.source if job.trial.weights else ""
        if source and source not in slot.sent and (self.results / source).is_file() and not Path(source).is_absolute():
            paths.append(self.results / source)
            slot.sent.add(source)
        return {str(path.relative_to(self.results)): path.read_bytes() for path in paths}

    def poll(self, timeout: float) -> list[Message]:
        self._look()
        messages = self._overdue()
        for slot in self._slots:
            if slot.job is not None and slot.pending is None and not slot.asks:
                verdict, slot.verdict = slot.verdict, None
                slot.pending = slot.actor.go_on.remote(verdict)
        under_way = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        if not under_way:
            time.sleep(0 if messages else timeout)
            return messages
        wait = 0 if messages else timeout
        done, _ = self._ray.wait(list(under_way), num_returns=len(under_way), timeout=0)
        if not done:
            done, _ = self._ray.wait(list(under_way), num_returns=1, timeout=wait)
        for reference in done:
            slot = under_way[reference]
            slot.pending = None
            try:
                found = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                messages += self._lost(slot, error)
                continue
            if isinstance(found, Node):
                self._arrived(slot, found)
            else:
                messages.append(self._take_in(slot, found))
        return messages

    def _lost(self, slot: _Slot, error: Exception) -> list[Message]:
        """Raises WorkError where no actor has ever come to a place."""
        if not self._arrivals:
            raise WorkError(
                f"No worker starts on the Ray cluster ({_cause(error)}). If it asks nobody for a token, start it "
                "anew with RAY_AUTH_MODE=token on all nodes, or set RAY_AUTH_MODE=disabled here where nobody else "
                "reaches it."
            )
        self._slots.remove(slot)
        job = slot.job
        where = f" on {slot.node.host}" if slot.node else ""
        return [] if job is None else [Message(job.trial_id, job.attempt, lost=f"its worker{where}: {_cause(error)}")]

    def _arrived(self, slot: _Slot, node: Node) -> None:
        """An actor has its place. Raises WorkError where that is no place for trials."""
        from suite.store.provenance import version

        if node.version != version():
            raise WorkError(
                f"{node.host} has mnist-suite {node.version}, and this is {version()}: install the same version on "
                "all nodes"
            )
        self._arrivals += 1
        slot.node = node
        if slot.job is not None:
            self._begin(slot, node, slot.job)

    def _take_in(self, slot: _Slot, report: Report) -> Message:
        job = slot.job
        assert job is not None
        if report.fault is not None:
            raise WorkError(report.fault)
        self._write(slot, job, report.files)
        if report.event is None:
            slot.job = None
            if not report.sound:
                self._kill(slot)
        slot.asks = report.event is not None and awaits_verdict(job.trial, report.event)
        return Message(job.trial_id, job.attempt, report.event)

    def _write(self, slot: _Slot, job: Job, files: Files) -> None:
        """Write what a node without the results directory has written for itself, in an order that a crash may cut."""
        from suite.store.trial import Overtaken

        directory = TrialDir(Path(job.directory))
        if files and directory.overtaken(job.attempt, slot.since):
            raise Overtaken.of(directory.id)
        for name in sorted(files, key=lambda name: (name == COMMIT, name not in LOGS, name == INDEX)):
            data, path = files[name], directory.path / Path(name).name
            if data is None:
                path.unlink(missing_ok=True)
            elif name in LOGS:
                with open(path, "ab", buffering=0) as file:
                    file.write(data)
            else:
                write_atomic(path, data)

    def _look(self) -> None:
        """Raises WorkError where the cluster's head has been silent for too long."""
        now = time.monotonic()
        if now - self._tried < self._patience / 4:
            return
        self._tried = now
        try:
            _reach(self._head)
        except InputError:
            if now - self._heard > self._patience:
                raise WorkError(
                    f"The Ray cluster at {self._head} has gone. No trial is lost: go on with --resume, there or "
                    "with another --engine."
                ) from None
        else:
            self._heard = now

    def _overdue(self) -> list[Message]:
        """Kill what takes longer than it may; waiting for a place does not count."""
        messages: list[Message] = []
        for slot, message in self._time.over([slot for slot in self._slots if slot.node]):
            self._kill(slot)
            messages.append(message)
        return messages

    def _kill(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        for slot in self._slots:
            if slot.job is not None and slot.job.trial_id == trial_id:
                if slot.verdict != "prune":  # a rung's verdict would not be asked for again
                    slot.verdict = verdict or slot.verdict
                slot.asks = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._probe.unlink()
        leaving = threading.Thread(target=self._ray.shutdown, daemon=True)  # takes minutes where the cluster has gone
        leaving.start()
        leaving.join(self._patience / 4)


def _threads(cpus: list[int], workers: int) -> int:
    """The most CPUs that each worker can have if all are to find room; 0 where they find none."""
    return next((n for n in range(max(cpus, default=0), 0, -1) if sum(c // n for c in cpus) >= workers), 0)


def _connect() -> Any:
    """Ray, connected. Raises InputError where it is missing, or its cluster cannot be used."""
    address = os.environ.get("RAY_ADDRESS", "")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # it reads its settings as it is imported
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not given and not (Path.home() / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of a cluster of our own
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'mnist-suite[ray]'.") from None
    _reach(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    own: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    with _signals_kept():
        try:
            ray.init(address=address or "local", **quiet, **({} if address else own))
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"RAY_ADDRESS={address}: {_line(error)}. What answers there is no Ray cluster that can be used, or it "
                "asks for another token (RAY_AUTH_TOKEN, or the file ~/.ray/auth_token)."
                if address
                else f"No Ray cluster can be started here: {_line(error)}."
            ) from None
    return ray


def _cause(error: Exception) -> str:
    """Ray tells the reason of a death last, and then what may lie behind it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("The actor is dead because")), _line(error))
    return said.partition(" Some common causes")[0].rstrip(".")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _reach(address: str) -> None:
    """Raises InputError where nobody listens at host:port."""
    if "//" in address:
        raise InputError(f"RAY_ADDRESS={address}: take the head node's own address, such as 10.0.0.1:6379, or auto.")
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # `auto`, or nothing
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}).") from None


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself as it connects."""
    before = {number: signal.getsignal(number) for number in POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
