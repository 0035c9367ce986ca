"""What is at work beside the trials of a study: commands that the dashboard has started, and studies that prepare.

A sweep holds controller.lock from its beginning, but writes study.json and status.json only after its pretraining,
which is a study of its own. The lock names the controller, and the pretraining's status names the same one.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.store.files import open_plain
from suite.store.liveness import process_id
from tui.model.snapshot import Opening, Snapshot, StudyView

HOLDER = re.compile(r"pid (\d+) on (.+), since ")
Ending = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Task:
    """A command that was started here, without its process."""

    name: str  # "mnist-2", or "export mnist/0007"
    log: Path  # its output
    study: str = ""  # in which it works, if that is known
    trials: int = 0  # that a search will have; 0: unknown, or no search
    began: float = 0.0  # seconds since 1970
    ending: Ending | None = None  # None: it is at work
    said: str = ""  # why it failed

    @property
    def failed(self) -> bool:
        return self.ending == "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """One line of what is at work."""

    name: str
    text: str
    failed: bool = False


def ending(code: int) -> Ending:
    """How a command has ended. 130 and 143 are the codes of a clean stop by a request or a signal."""
    return "done" if code == 0 else "stopped" if code in (130, 143, -2, -15) else "failed"


def opening(directory: Path) -> Opening | None:
    """Who holds the lock of a study without study.json, or None where nobody does or it cannot be known.

    The file stays when its holder has ended, so the process must exist. On another host that is not known.
    """
    try:
        with open(open_plain(directory / "controller.lock"), encoding="utf-8", errors="replace") as file:
            found, since = HOLDER.match(file.read(300)), os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    if found is None:
        return None
    pid, host = int(found[1]), found[2]
    alive = host != socket.gethostname() or exists(pid)
    return Opening(directory.name, pid, host, since) if alive else None


def exists(pid: int) -> bool:
    if Path("/proc/self").exists():
        return bool(process_id(pid))
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True


def jobs(snapshot: Snapshot, tasks: Sequence[Task], shown: Sequence[str] = ()) -> list[Job]:
    """A line for everything at work, the newest command first, and for commands that have failed.

    `shown` names the studies whose trials are shown elsewhere on the screen.
    """
    found = [job for task in reversed(tasks) if (job := _of_task(task, snapshot, shown)) is not None]
    known = {task.study for task in tasks if task.ending is None}
    first = {one.holder: one for one in reversed(snapshot.openings)}  # its pretraining is held by the same process
    for one in snapshot.openings:
        if one.study not in known and first[one.holder] is one and (words := _preparing(one, snapshot, 0)):
            found.append(Job(one.study, words))
    for view in snapshot.studies:
        if view.name not in known and view.name not in shown and view.state in ("running", "stopping"):
            found.append(Job(view.name, _progress(view)))
    return found


def _of_task(task: Task, snapshot: Snapshot, shown: Sequence[str]) -> Job | None:
    if task.ending is not None:
        return Job(task.name, f"failed: {task.said}", failed=True) if task.failed else None
    if not task.study:
        return Job(task.name, "at work")
    view = snapshot.study(task.study)
    if view is not None and view.state in ("running", "stopping"):
        return None if task.study in shown else Job(task.name, _progress(view))
    if view is not None and view.status is not None and view.status.started >= task.began:
        return Job(task.name, f"{view.status.state}; its process is about to end")
    one = next((o for o in snapshot.openings if o.study == task.study), None)
    if one is not None and (words := _preparing(one, snapshot, task.trials)):
        return Job(task.name, words)
    return Job(task.name, f"starting{_then(task.trials)}" if task.trials else "at work")


def _preparing(one: Opening, snapshot: Snapshot, trials: int) -> str:
    """'pretraining 1 of 1 (38 %), then 50 trials'; empty where it is not known that the holder of the lock is there."""
    for view in snapshot.studies:
        status = view.status
        if status and status.state == "running" and not view.stale and (status.pid, status.host) == one.holder:
            at = next((run for run in view.runs if run.row.state == "running"), None)
            part = f" ({100 * at.step // at.started.steps} %)" if at and at.started and at.started.steps else ""
            return f"pretraining {min(status.finished + 1, status.planned)} of {status.planned}{part}{_then(trials)}"
    return f"preparing{_then(trials)}" if one.host == socket.gethostname() else ""


def _then(trials: int) -> str:
    return f", then {trials} trial{'s' if trials != 1 else ''}" if trials else ", then its trials"


def _progress(view: StudyView) -> str:
    return f"{view.done} of {view.planned} trials{', stopping' if view.stopping else ''}"
