"""The Optuna storage of a study: SQLite beside the trials, or a database by URL."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from suite.errors import InputError


def open_storage(database: Path, url: str | None) -> BaseStorage:
    """SQLite in WAL mode beside the trials, or whatever `url` names. Raises InputError, never showing the URL."""
    if url is None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        check_database(database)
        storage = RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})

        @event.listens_for(storage.engine, "connect")
        def _durable_and_concurrent(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        assert isinstance(storage.engine, Engine)
        storage.engine.dispose()  # so that the pragmas hold from the next connection on
        return storage
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # SQLAlchemy's and each driver's own kinds
        raise InputError(
            f"The --storage URL cannot be used ({type(error).__name__}). It should look like "
            "postgresql+psycopg://user@host/database, with the driver installed and the server up."
        ) from None


LEARNED = (TrialState.COMPLETE, TrialState.PRUNED)  # what the sampler learns from


class DamagedDatabase(Exception):
    """optuna.db is no sound SQLite database; it can be set aside, since the trial directories hold all it knew."""


def check_database(path: Path) -> None:
    """Raises DamagedDatabase."""
    if not path.exists():
        return
    try:
        connection = sqlite3.connect(path, timeout=60)
        try:
            answer = connection.execute("PRAGMA quick_check").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise DamagedDatabase(str(error)) from None
    if answer != ("ok",):
        raise DamagedDatabase(str(answer))


def is_damage(error: BaseException) -> bool:
    """Whether an error of the database speaks of its content, rather than of the disk or of who else uses it."""
    text = str(error)
    passing = ("disk is full", "disk I/O", "locked", "readonly", "unable to open")
    return isinstance(error, DamagedDatabase) or not any(word in text for word in passing)


def set_aside(path: Path) -> None:
    """Rename a damaged database, with the files that SQLite keeps beside it, out of the way."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, path.with_name(f"{path.name}.damaged{suffix}"))
