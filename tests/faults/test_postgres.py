"""`--storage` with a real PostgreSQL server, started for these tests alone: it moves, breaks off and is shared."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suite.store.study import StudyDir

PASSWORD = "correct-horse-battery"


def programs() -> Path | None:
    """Where initdb and pg_ctl are: Debian keeps them off the search path."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)]
    return next((Path(path).resolve().parent for path in found if path), None)


pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(programs() is None, reason="no PostgreSQL server here"),
]


class Server:
    """A server of its own, reached by a socket in its folder; it will not run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql+psycopg://suite:{PASSWORD}@/postgres?host={folder}"
        self.account: dict[str, Any] = {}
        if os.geteuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = names.get("postgres") or names["nobody"]
            self.account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(folder, account.pw_uid, account.pw_gid)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self.run("initdb", "--username=suite", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync")
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        place = programs()
        assert place is not None
        with open(
            self.folder.parent / f"{self.folder.name}.log", "ab"
        ) as log:  # pg_ctl leaves its streams to the server
            subprocess.run(
                [place / program, f"--pgdata={self.folder}/data", *arguments],
                cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=True, timeout=500,
                **self.account,
            )  # fmt: skip

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        self.run("pg_ctl", "--wait", f"--options={options}", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def rows(self, query: str) -> list[Any]:
        import psycopg

        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="mnist-suite-pg-", dir="/tmp"))  # the path of a socket has to be short
    try:
        made = Server(folder)
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


def test_a_study_moves_to_another_host_with_its_database(
    start, experiment: Path, reference, server: Server, tmp_path: Path, seed: int, figures, faults
) -> None:
    chance = random.Random(seed)
    directory = StudyDir(tmp_path / "results", "small")
    command = ("sweep", experiment, "--resume", "--storage", server.url, "--results", directory.path.parent)
    runs = [start(*command, host="first")]
    faults.wait_for(lambda: runs[0].poll() is not None or any(s.record for s in directory.states()))
    time.sleep(chance.uniform(0, 0.5))
    runs[0].signal(signal.SIGKILL)
    runs[0].wait()
    figures.fault("controller")
    runs.append(start(*command, host="first"))
    before = faults.events_of(tmp_path)
    faults.wait_for(lambda: runs[1].poll() is not None or faults.events_of(tmp_path) > before)
    runs[1].signal(signal.SIGTERM)
    figures.fault("signal")
    assert runs[1].wait() in (143, 0), runs[1].errors
    runs.append(start(*command, host="second"))
    assert runs[2].wait() == 0, runs[2].errors
    assert not directory.database.exists()
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    faults.check_told(server.rows(faults.TOLD.format(json="a.value_json::jsonb #>> '{}'")), directory.states(), figures)

    # somebody else, with another results directory and the same name for a study
    runs.append(start("sweep", experiment, "--storage", server.url, "--results", tmp_path / "theirs"))
    assert runs[3].wait() == 2, runs[3].errors
    assert "of another results directory" in runs[3].errors
    assert not list((tmp_path / "theirs").rglob("*.json"))
    faults.check_told(server.rows(faults.TOLD.format(json="a.value_json::jsonb #>> '{}'")), directory.states(), figures)

    said = "".join(run.errors + run.output for run in runs)
    assert PASSWORD not in said
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and PASSWORD.encode() in p.read_bytes()]


def test_a_database_that_goes_down_costs_time_and_nothing_else(
    start, experiment: Path, reference, server: Server, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "down")
    command = ("sweep", experiment, "--study", "down", "--resume", "--storage", server.url, "--results", tmp_path)
    run = start(*command)
    faults.wait_for(lambda: run.poll() is not None or any(s.record for s in directory.states()))
    server.stop()
    figures.fault("database down")
    try:
        assert run.wait() == 1, run.errors
        assert "The --storage database failed" in run.errors
        assert "--resume" in run.errors
        refused = start(*command)
        assert refused.wait() == 2, refused.errors
        assert "cannot be used" in refused.errors
    finally:
        server.start()
    for ended in (run, refused):
        assert "Traceback" not in ended.errors
        assert PASSWORD not in ended.errors
    last = start(*command)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
