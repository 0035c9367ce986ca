"""How a trial's files come back from a Ray node that does not see the results directory.

Such a node works in a directory of its own. It is given the trial's files and weights with the job, and returns what
has changed with every event; the controller, which then stands in for the worker as the writer, writes that down.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from suite.execution.job import Job
from suite.store.files import write_atomic
from suite.store.trial import CONSOLE, EVENTS, RESULT, Overtaken, TrialDir
from suite.training.checkpoint import INDEX

LOGS = (EVENTS, CONSOLE)  # only ever grow at their end

Files = dict[str, bytes | None]  # contents by name; of logs what was appended; None: removed


class NodeDirectory:
    """On the node: the stand-in for the results directory, for one trial at a time."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="mnist-suite-")
        self._trial: Path | None = None
        self._sent: dict[str, tuple[int, int]] = {}  # modification time and size of what the controller has

    def place(self, job: Job, given: Files) -> Job:
        """The job with paths of this node, after writing the files `given` (paths below the results directory)."""
        root = Path(self._root.name)
        if self._trial is not None:
            shutil.rmtree(self._trial, ignore_errors=True)  # the controller has all of it
        self._trial = root / Path(job.directory).relative_to(job.results)
        self._trial.mkdir(parents=True, exist_ok=True)
        for name, data in given.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data or b"")
        self._sent = {path.name: _stamp(path) for path in self._trial.iterdir()}
        return replace(job, directory=str(self._trial), results=str(root))

    def changes(self) -> Files:
        """What has changed in the trial's directory since the last call."""
        assert self._trial is not None
        found: Files = {}
        present = {p.name: p for p in self._trial.iterdir() if p.is_file() and not p.name.endswith(".tmp")}
        for name, path in present.items():
            stamp = _stamp(path)
            if self._sent.get(name) != stamp:
                with open(path, "rb") as file:
                    file.seek(self._sent.get(name, (0, 0))[1] if name in LOGS else 0)
                    found[name] = file.read()
                self._sent[name] = stamp
        for name in set(self._sent) - set(present):
            found[name] = None
            del self._sent[name]
        return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def files_for_node(job: Job, weights: Iterable[Path]) -> Files:
    """What a node needs for the job: the trial's files so far, and those of `weights`."""
    results = Path(job.results)
    paths = [path for path in Path(job.directory).iterdir() if path.is_file() and path.name != CONSOLE]
    return {str(path.relative_to(results)): path.read_bytes() for path in (*paths, *weights)}


def weights_files(job: Job) -> set[Path]:
    """The files below the results directory that hold weights of the trial: its initial ones, and its teachers'."""
    places = [Path(weights.source) for weights in job.trial.given]
    paths = {Path(job.results) / place for place in places if not place.is_absolute()}
    return {path for path in paths if path.is_file()}


class Mirror:
    """At the controller: writes what one attempt has written on its node."""

    def __init__(self, job: Job) -> None:
        self._directory, self._attempt = TrialDir(Path(job.directory)), job.attempt
        self._since = self._directory.next_seq()

    def write(self, files: Files) -> None:
        """Write the changes, in an order in which a crash at any point leaves a directory that can be resumed.

        Raises Overtaken where another process has taken the trial up, OSError where the disk fails.
        """
        if files and self._directory.overtaken(self._attempt, self._since):
            raise Overtaken.of(self._directory.id)
        for name in sorted(files, key=_order):
            data, path = files[name], self._directory.path / Path(name).name
            if data is None:
                path.unlink(missing_ok=True)
            elif name in LOGS:
                with open(path, "ab", buffering=0) as file:
                    file.write(data)
            else:
                write_atomic(path, data)


def _order(name: str) -> tuple[bool, bool, bool]:
    """Logs first; the checkpoint's index after the tensors that it names; the commit marker last."""
    return name == RESULT, name not in LOGS, name == INDEX
