"""Whether a study's controller is at work, judged from status.json.

Clocks of two machines may differ by minutes, so a heartbeat, which the controller's clock has stamped, is not taken for
old because this machine's clock says so. What counts is:

* the process itself, where it ran on this machine: status.json identifies it (`process_id`), so that its end is known
  at once, also where its pid has been given to another process;
* else whether status.json changes while this process watches, for a time that a monotonic clock measures. A controller
  writes it every two seconds.

A first look has to go by the clocks. Where they leave a doubt, `Pulse.in_doubt` is true until the next change.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from suite.spec import Status

STALE_SECONDS = 60.0  # a controller or trial that wrote nothing for longer is shown as stale

SIGN_SECONDS = 5.0  # within which a controller that is at work replaces status.json; more than two heartbeats

CLOCKS_DIFFER = 300.0  # seconds; as much as Kerberos tolerates by default (`clockskew`, krb5.conf(5))

# working: at work. silent: gave no sign of life for long. died: its process has ended without saying so.
# ended: it said so itself. unknown: there is no status.
Life = Literal["working", "silent", "died", "ended", "unknown"]


def process_id(pid: int) -> str:
    """Identifies a process among all of this boot and PID namespace: boot id, namespace, start time in clock ticks.

    Empty where there is no such process, where it has ended and waits for its parent, and without a /proc as Linux has.
    Source: proc(5), https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    with suppress(OSError, ValueError, IndexError):
        facts = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if facts[0] not in "ZX":
            return f"{_machine()} {facts[19]}"
    return ""


def _machine() -> str:
    """This boot of this machine, and the PID namespace, outside which pids mean other processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def has_died(status: Status) -> bool:
    """Whether a controller that says that it is at work is known to have ended. False where that cannot be known."""
    if status.state != "running":
        return False
    if status.process:
        with suppress(OSError):
            if status.process.rpartition(" ")[0] == _machine():
                return process_id(status.pid) != status.process
        return False
    return status.host == socket.gethostname() and not _exists(status.pid)  # of an older version, or not on Linux


def _exists(pid: int) -> bool:
    """Whether this host has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


class Pulse:
    """Follows the status of one study, look by look."""

    def __init__(self, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.monotonic = clock, monotonic
        self.life: Life = "unknown"
        self.present: float | None = None
        """The time that its trials' events are compared with, in seconds since 1970: the last heartbeat, which the
        controller's clock has stamped; infinite where nobody trains them any more; None without a status."""
        self._looks = 0
        self.status: Status | None = None
        self._since = 0.0  # when it was seen to change, by the monotonic clock
        self._patience = STALE_SECONDS  # without a change

    def look(self, status: Status | None) -> Life:
        """What status.json as it is now says of the controller."""
        now = self.monotonic()
        if status != self.status:
            self._patience = STALE_SECONDS if self._looks else self._at_first(status)
            self.status, self._since = status, now
        self._looks += 1
        if status is None:
            self.life, self.present = "unknown", None
            return self.life
        if status.state != "running":
            self.life = "ended"
        elif has_died(status):
            self.life = "died"
        else:
            self.life = "working" if now - self._since < self._patience else "silent"
        self.present = status.heartbeat if self.life == "working" else math.inf
        return self.life

    def _at_first(self, status: Status | None) -> float:
        """For how long a status that is seen for the first time counts as a sign of life."""
        age = abs(self.clock() - status.heartbeat) if status else 0.0
        if age < STALE_SECONDS:
            return STALE_SECONDS - age
        return SIGN_SECONDS if age < CLOCKS_DIFFER else 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether it counts as working although its heartbeat is old by this machine's clock."""
        return self.life == "working" and self._patience <= SIGN_SECONDS


def looked_at(readers: Sequence[Callable[[], Status | None]]) -> list[Pulse]:
    """One look at each study by a function that reads its status.json; where a look leaves a doubt, more of them, for
    up to `SIGN_SECONDS` in all."""
    pulses = [Pulse() for _ in readers]
    pairs = list(zip(pulses, readers))
    for pulse, read in pairs:
        pulse.look(read())
    while pairs := [(pulse, read) for pulse, read in pairs if pulse.in_doubt]:
        time.sleep(0.1)
        for pulse, read in pairs:
            pulse.look(read())
    return pulses
