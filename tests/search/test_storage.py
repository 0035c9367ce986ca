"""optuna.db: what is damage and what is not, and that a copy which was set aside stays."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from suite.errors import WorkError
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.search import sampler, storage
from suite.spec import Experiment, Status
from suite.store.study import StudyDir


@pytest.fixture
def resume(small: Any, tmp_path: Path, made: Callable[..., Experiment]) -> Callable[[], Status]:
    """Opens a copy of the small study, which is complete, so that nothing is trained."""
    shutil.copytree(small.results, tmp_path, dirs_exist_ok=True)
    with closing(sqlite3.connect(StudyDir(tmp_path, "small").database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else all of it could be read from the log beside it

    def run() -> Status:
        *_, last = sweep(made(), tmp_path, options=Options(device="cpu", resume=True), stop=Stop())
        return last

    return run


def kept(directory: StudyDir) -> list[str]:
    return sorted(path.name for path in directory.path.glob("optuna.db.damaged*"))


def garbled(path: Path) -> None:
    """Whole for SQLite, but the JSON of a distribution does not parse."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update trial_params set distribution_json = '{'")


def foreign(path: Path) -> None:
    """A SQLite database of something else."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table version_info (name text)")


def noise(path: Path) -> None:
    path.write_bytes(b"no database" * 500)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("hurt", [noise, cut, garbled, foreign])
def test_a_damaged_database_is_set_aside_and_rebuilt(
    resume: Callable[[], Status], tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    directory = StudyDir(tmp_path, "small")
    hurt(directory.database)
    last = resume()
    assert (last.state, last.finished + last.pruned) == ("done", 6)
    assert "optuna.db.damaged, rebuilt" in last.message
    assert kept(directory) == ["optuna.db.damaged"]
    with closing(sqlite3.connect(directory.database)) as database:
        assert database.execute("select count(*) from trials").fetchone() == (6,)


def test_a_copy_that_was_set_aside_is_never_overwritten(resume: Callable[[], Status], tmp_path: Path) -> None:
    directory = StudyDir(tmp_path, "small")
    for content in (b"first" * 1000, b"second" * 1000):
        for path in directory.path.glob("optuna.db-*"):
            path.unlink()
        directory.database.write_bytes(content)
        last = resume()
    assert "optuna.db.damaged.2, rebuilt" in last.message
    assert kept(directory) == ["optuna.db.damaged", "optuna.db.damaged.2"]
    assert (directory.path / "optuna.db.damaged").read_bytes() == b"first" * 1000
    assert (directory.path / "optuna.db.damaged.2").read_bytes() == b"second" * 1000


@pytest.mark.parametrize("error", [TypeError("a bug of ours"), KeyError("lr"), MemoryError()])
def test_an_error_of_our_own_leaves_the_database_alone(
    resume: Callable[[], Status], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    directory = StudyDir(tmp_path, "small")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(sampler, "distribution", fail)
    with pytest.raises(type(error)):
        resume()
    assert kept(directory) == []
    monkeypatch.undo()
    assert resume().message == ""


def test_a_database_that_another_process_has_locked_is_left_alone(
    resume: Callable[[], Status], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = StudyDir(tmp_path, "small")
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(directory.database)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WorkError, match="locked"):
            resume()
    assert kept(directory) == []


def refused(make: Callable[[sqlite3.Connection], Any], path: Path, uri: str = "") -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as caught, closing(sqlite3.connect(uri or path, uri=bool(uri))) as connection:
        make(connection)
    return caught.value


def test_what_sqlite_reports_of_disk_and_permissions_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (x)")
    write = "insert into t values (zeroblob(100000))"
    full = refused(lambda c: [c.execute(s) for s in ("PRAGMA max_page_count=2", write)], path)
    readonly = refused(lambda c: c.execute(write), path, f"file:{path}?mode=ro")
    missing = refused(lambda c: c.execute("select 1 from t"), path, f"file:{tmp_path}/none/some.db")
    names = [e.sqlite_errorname for e in (full, readonly, missing)]
    assert names == ["SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN"]
    assert not any(storage.is_damage(error) for error in (full, readonly, missing))
    noise(path)
    assert storage.is_damage(refused(lambda c: c.execute("select * from t"), path))


@pytest.mark.parametrize(
    "name", ["a%20b", "what?x=1", "q?timeout=z&uri=true", "h#x", "br{ace}", "a:b@c", "é 猫", "\udce9"]
)
def test_the_database_lies_where_its_path_says(name: str, tmp_path: Path) -> None:
    """A path is neither a URL nor a template."""
    folder = tmp_path / name
    folder.mkdir()
    for _ in range(2):
        opened = storage.open_storage(folder / "optuna.db", None)
        opened.get_all_studies()
        storage.close_storage(opened)
    assert [path for path in tmp_path.rglob("*") if path != folder] == [folder / "optuna.db"]
