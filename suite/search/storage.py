"""The Optuna storage of a study: SQLite beside the trials, or a database by URL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alembic.util.exc import CommandError
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import MultipleResultsFound, NoResultFound, SQLAlchemyError

from suite.errors import InputError
from suite.store.repair import unused_path

BUSY_SECONDS = 60.0  # how long SQLite waits for another process's lock

DAMAGE_CODES = {  # https://sqlite.org/rescode.html; all others are about the disk, permissions or other processes
    sqlite3.SQLITE_ERROR,  # the SQL at opening is always the same, so a table or column of Optuna's is missing
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_NOTADB,
}

CONTENT_ERRORS = (  # raised by Optuna, SQLAlchemy and Alembic over content that makes no sense to them
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError,
    NoResultFound, MultipleResultsFound, CommandError,
)  # fmt: skip


class DamagedDatabase(Exception):
    """optuna.db is no sound SQLite database, or not one of Optuna's.

    It may be set aside: the trial directories hold everything that was in it.
    """


def open_storage(database: Path, url: str | None) -> BaseStorage:
    """SQLite in WAL mode at `database`, or whatever `url` names.

    Raises DamagedDatabase for SQLite only, and InputError where the URL cannot be used; the message never shows it.
    """
    if url is None:
        return _open_sqlite(database)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # SQLAlchemy's and each driver's own kinds
        raise InputError(
            f"The --storage URL cannot be used ({type(error).__name__}). It should look like "
            "postgresql+psycopg://user@host/database, with the driver installed and the server up."
        ) from None


def _open_sqlite(database: Path) -> RDBStorage:
    check_database(database)
    connections: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(database, timeout=BUSY_SECONDS, check_same_thread=False)
        connections.append(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    try:
        with damage_detected():
            # The file is opened by `connect`: a path may hold characters that mean something in a URL ("?", "%") or to
            # Optuna ("{"). The URL has a name only to be one of a file.
            return RDBStorage(f"sqlite:///{database.name}", engine_kwargs={"creator": connect})
    except BaseException:
        # SQLite removes optuna.db-wal by its name when the last connection closes: that must not happen later, when
        # the name belongs to the database that replaces this one.
        for connection in connections:
            connection.close()
        raise


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage that is not used any more, before its file is renamed."""
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def check_database(path: Path) -> None:
    """Let SQLite check the file, if there is one. Raises DamagedDatabase."""
    if not path.exists():
        return
    with damage_detected(), contextlib.closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        answer = connection.execute("PRAGMA quick_check").fetchone()
    if answer != ("ok",):
        raise DamagedDatabase(str(answer))


@contextlib.contextmanager
def damage_detected() -> Iterator[None]:
    """Raise DamagedDatabase where the SQLite file that is read within this context proves to be damaged.

    Only for calls of Optuna and SQLite that read the file. Content that is whole for SQLite but makes no sense to
    Optuna (JSON that does not parse, an unknown state) shows as one of Python's own exceptions from there.
    """
    try:
        yield
    except CONTENT_ERRORS as error:
        raise DamagedDatabase(_first_line(error)) from error
    except (sqlite3.Error, SQLAlchemyError, OptunaError) as error:
        if not is_damage(error):
            raise
        raise DamagedDatabase(_first_line(error)) from error


def is_damage(error: BaseException) -> bool:
    """Whether an exception speaks of the content of a SQLite file, rather than of the disk, permissions, other
    processes or our own code."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, DamagedDatabase):
            return True
        if isinstance(found, sqlite3.Error):
            code = getattr(found, "sqlite_errorcode", None)  # absent where Python's own module raises it
            return code & 0xFF in DAMAGE_CODES if code is not None else "Could not decode" in str(found)
        found = getattr(found, "orig", None) or found.__cause__  # SQLAlchemy wraps SQLite's, Optuna SQLAlchemy's
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def set_aside(path: Path) -> Path:
    """Rename a damaged database, with the files that SQLite keeps beside it; returns its new path.

    The name is free: copies that were set aside before stay.
    """
    kept = unused_path(path.with_name(f"{path.name}.damaged"))
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, kept.with_name(kept.name + suffix))
    return kept
