"""What is at work beside the trials, and logs: the pure parts."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from suite.store.study import StudyDir
from tui.draw.log import log_lines
from tui.model.feed import Watcher
from tui.model.jobs import Job, Task, ending, jobs
from tui.model.logs import LogReader
from tui.model.snapshot import Snapshot
from tui.testing.synthetic import HOST, NOW, write_status, write_study
from tui.widgets.jobs import job_lines


def poll(results: Path) -> Snapshot:
    return Watcher(results, lambda: NOW).poll()


def lock(results: Path, study: str, pid: int, host: str) -> None:
    (results / study / "trials").mkdir(parents=True, exist_ok=True)
    (results / study / "controller.lock").write_text(f"pid {pid} on {host}, since 2026-01-01 10:00:00")


def test_a_study_is_told_of_while_its_pretraining_runs(tmp_path: Path) -> None:
    task = Task("mnist-2", tmp_path / "log", "mnist-2", 50)
    assert jobs(Snapshot(), [task]) == [Job("mnist-2", "starting, then 50 trials")]
    lock(tmp_path, "mnist-2", os.getpid(), socket.gethostname())
    assert jobs(poll(tmp_path), [task]) == [Job("mnist-2", "preparing, then 50 trials")]
    assert jobs(poll(tmp_path), []) == [Job("mnist-2", "preparing, then its trials")]
    lock(tmp_path, "mnist-2", 4242, HOST)  # as the pretraining's status says
    write_study(tmp_path, "pretrain-cnn-mnist", ["running"])
    text = "pretraining 1 of 1 (40 %), then "
    assert jobs(poll(tmp_path), [task], ["pretrain-cnn-mnist"]) == [Job("mnist-2", text + "50 trials")]
    assert jobs(poll(tmp_path), [], ["pretrain-cnn-mnist"]) == [Job("mnist-2", text + "its trials")]
    write_study(tmp_path, "mnist-2", ["running", "finished"])
    assert jobs(poll(tmp_path), [task], ["mnist-2", "pretrain-cnn-mnist"]) == []  # its trials are shown
    assert jobs(poll(tmp_path), [task], ["pretrain-cnn-mnist"]) == [Job("mnist-2", "1 of 2 trials")]
    write_status(StudyDir(tmp_path, "mnist-2"), ["finished"] * 2, running=False)
    assert jobs(poll(tmp_path), [task], ["pretrain-cnn-mnist"])[0].text == "done; its process is about to end"


def test_the_lock_of_one_who_is_gone_is_no_job(tmp_path: Path) -> None:
    lock(tmp_path, "left", 2**30, socket.gethostname())
    lock(tmp_path, "elsewhere", 4242, HOST)  # of whom no status tells
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "controller.lock").write_text("nonsense")
    os.mkfifo(tmp_path / "odd-2") if hasattr(os, "mkfifo") else None
    assert jobs(poll(tmp_path), []) == []


def test_a_study_and_its_pretraining_that_prepare_are_one_job(tmp_path: Path) -> None:
    for seconds, study in enumerate(("new", "a-pretraining")):
        lock(tmp_path, study, os.getpid(), socket.gethostname())
        os.utime(tmp_path / study / "controller.lock", (NOW + seconds, NOW + seconds))
    assert [job.name for job in jobs(poll(tmp_path), [])] == ["new"]


@pytest.mark.parametrize(
    ("code", "kind"), [(0, "done"), (130, "stopped"), (143, "stopped"), (-15, "stopped"), (1, "failed"), (-9, "failed")]
)
def test_a_stop_is_no_failure(code: int, kind: str) -> None:
    assert ending(code) == kind
    task = Task("export a/1", Path("x"), ending=ending(code), said="too bad (code 1)")
    assert [job.failed for job in jobs(Snapshot(), [task])] == ([True] if kind == "failed" else [])


def test_only_some_jobs_have_a_line() -> None:
    lines = job_lines([Job("a", "failed: x", failed=True), *(Job(str(i), "at work") for i in range(4))]).plain
    assert lines.splitlines() == ["✗ a: O its log · failed: x", "● 0: at work", "● 1: at work (and 2 more)"]


@given(
    st.lists(st.sampled_from([b"one\n", b"two", b"\n", b"50%\r100%\n", "é\n".encode(), b"\x1b[1mred\n"]), max_size=30)
)
def test_a_log_that_is_read_in_parts_is_the_log(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "console.log"
    path.write_bytes(b"")
    reader = LogReader(path, 5)
    for part in parts:
        with path.open("ab") as file:
            file.write(part)
        assert reader.poll() and not reader.poll()
    whole = LogReader(path, 5)
    whole.poll()
    *ended, rest = b"".join(parts).decode().replace("\x1b[1m", "").split("\n")
    expected = [*enumerate(ended, 1)][-5:] + ([(len(ended) + 1, rest)] if rest else [])
    assert reader.lines == whole.lines == [(number, line.rpartition("\r")[2]) for number, line in expected]


def test_a_log_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    reader = LogReader(path)
    assert not reader.poll() and reader.lines == []
    path.write_text("a\nb\n")
    assert reader.poll() and reader.lines == [(1, "a"), (2, "b")]
    path.unlink()
    assert reader.poll() and reader.lines == []
    path.write_text("c")
    assert reader.poll() and reader.lines == [(1, "c")]


@given(
    st.lists(st.text(st.sampled_from("ab猫 ")), max_size=20), st.sampled_from(["", "a", "B", "猫"]), st.integers(0, 60)
)
def test_lines_are_wrapped_and_found(texts: list[str], wanted: str, width: int) -> None:
    drawn = log_lines([("", list(enumerate(texts, 1)))], wanted, width)
    shown = [int(number) for number, _ in drawn if number.strip()]
    assert shown == [i for i, text in enumerate(texts, 1) if wanted.casefold() in text.casefold()]
    assert "".join(text for _, text in drawn) == "".join(texts[i - 1] for i in shown)
    assert all(cell_len(number) + 2 + cell_len(text) <= max(width, 14) for number, text in drawn)
