"""Whether a controller is at work: by its process on this machine, by change elsewhere, never by two clocks alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.spec import Status
from suite.store.liveness import CLOCKS_DIFFER, SIGN_SECONDS, STALE_SECONDS, Pulse, has_died, looked_at, process_id
from suite.store.study import StudyDir

NOW = 1.8e9


def status(**facts: object) -> Status:
    known = {"study": "s", "state": "running", "pid": 1, "host": "elsewhere", "started": 1.0, "planned": 2}
    return Status.model_validate({**known, "heartbeat": NOW, **facts})


linux = pytest.mark.skipif(not process_id(os.getpid()), reason="no /proc")


@linux
def test_a_killed_controller_is_known_at_once(tmp_path: Path) -> None:
    """Also while nobody has waited for it, and when its pid belongs to another process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = {"pid": process.pid, "host": socket.gethostname(), "process": process_id(process.pid)}
    at_work = status(**mine, heartbeat=time.time())
    study = StudyDir(tmp_path, "s")
    study.path.mkdir()
    study.status_path.write_text(at_work.model_dump_json())
    assert not has_died(at_work) and study.live() == at_work
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_died(at_work) and study.live() is None
    assert Pulse().look(at_work) == "died"
    process.wait()
    assert has_died(at_work)
    assert has_died(at_work.model_copy(update={"pid": os.getpid()}))


@linux
def test_a_pid_of_another_machine_or_namespace_says_nothing() -> None:
    boot, namespace, began = process_id(os.getpid()).split(" ")
    for other in (f"another {namespace} {began}", f"{boot} pid:[1] {began}"):
        assert not has_died(status(pid=2**22 + 1, process=other, host=socket.gethostname()))


def test_a_status_of_an_older_version_is_judged_by_host_and_pid() -> None:
    assert has_died(status(pid=2**22 + 1, host=socket.gethostname()))
    assert not has_died(status(pid=os.getpid(), host=socket.gethostname()))
    assert not has_died(status(pid=2**22 + 1))
    assert not has_died(status(pid=2**22 + 1, host=socket.gethostname(), state="done"))


@given(
    offset=st.floats(-1e6, 1e6),
    beats=st.lists(st.floats(0.1, STALE_SECONDS - 1), min_size=1, max_size=10),
    silence=st.floats(0, 300),
)
def test_after_the_first_heartbeat_no_clock_matters(offset: float, beats: list[float], silence: float) -> None:
    passed = [0.0]
    pulse = Pulse(lambda: NOW + offset, lambda: passed[0])
    pulse.look(status())
    for number, seconds in enumerate(beats, 1):
        passed[0] += seconds
        assert pulse.look(status(heartbeat=NOW + number)) == "working"
        assert pulse.present == NOW + number
    passed[0] += silence
    assert pulse.look(status(heartbeat=NOW + len(beats))) == ("working" if silence < STALE_SECONDS else "silent")


@pytest.mark.parametrize(
    ("age", "patience"),
    [(0, STALE_SECONDS), (50, 10), (-50, 10), (120, SIGN_SECONDS), (-120, SIGN_SECONDS), (CLOCKS_DIFFER, 0)],
)
def test_a_first_look_goes_by_the_clocks_and_leaves_room_for_their_difference(age: float, patience: float) -> None:
    passed = [0.0]
    pulse = Pulse(lambda: NOW + age, lambda: passed[0])
    assert pulse.look(status()) == ("working" if patience else "silent")
    passed[0] = patience
    assert pulse.look(status()) == "silent" and pulse.present == float("inf")


def test_one_look_waits_for_a_heartbeat_where_the_clocks_leave_a_doubt() -> None:
    late = [status(heartbeat=time.time() - 120 + beat) for beat in range(2)]
    looks = iter([late[0], *[late[1]] * 3])
    (pulse,) = looked_at([lambda: next(looks)])
    assert pulse.life == "working" and not pulse.in_doubt
    ended = looked_at([lambda: status(state="done"), lambda: None])
    assert [one.life for one in ended] == ["ended", "unknown"]
