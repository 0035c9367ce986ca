"""Reads a text file that grows, such as console.log: its last lines, and how many there were before them."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from suite.store.files import open_plain

LINES = 2000  # that are kept
CHUNK = 2**20  # bytes
TAIL_LINES, TAIL_BYTES = 400, 64 * 1024
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")

Numbered = tuple[int, str]  # a line, counted from 1


class LogReader:
    """Follows one file. One that was replaced or truncated is read from its beginning."""

    def __init__(self, path: Path, lines: int = LINES) -> None:
        self.path = path
        self._lines: deque[str] = deque(maxlen=lines)
        self._inode = 0
        self._reset()

    def _reset(self) -> None:
        self._lines.clear()
        self._offset = 0
        self._count = 0  # of lines that have ended
        self._rest = b""  # of a line that has not ended

    def poll(self) -> bool:
        """Read what is new; return whether anything was."""
        try:
            with open(open_plain(self.path), "rb") as file:
                status = os.fstat(file.fileno())
                changed = status.st_ino != self._inode or status.st_size < self._offset
                if changed:
                    self._reset()
                    self._inode = status.st_ino
                file.seek(self._offset)
                while data := file.read(CHUNK):
                    changed = True
                    self._offset += len(data)
                    *whole, self._rest = (self._rest + data).split(b"\n")
                    self._count += len(whole)
                    self._lines.extend(_text(line) for line in whole[-(self._lines.maxlen or 0) :])
                    self._rest = self._rest[-CHUNK:]
                return changed
        except OSError:
            changed = self._offset > 0
            self._reset()
            return changed

    @property
    def lines(self) -> list[Numbered]:
        lines = list(self._lines)
        if self._rest:
            lines.append(_text(self._rest))
        return list(enumerate(lines, self._count - len(self._lines) + 1))


def _text(line: bytes) -> str:
    return _last_state(line.decode("utf-8", "replace"))


def _last_state(line: str) -> str:
    """A progress bar rewrites its line after carriage returns: only its last state is kept."""
    return clean(line.rstrip("\r").rpartition("\r")[2])


def clean(text: str) -> str:
    """Remove escape sequences and control characters, so that no log can control the terminal."""
    return ESCAPES.sub("", text.replace("\t", "    ").replace("\n", " "))


def tail(path: Path) -> tuple[str, ...]:
    """The last TAIL_LINES lines of a text file; at most TAIL_BYTES are read."""
    try:
        with open(open_plain(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(_last_state(line) for line in text.split("\n"))[-TAIL_LINES:]


def matching(lines: Iterable[Numbered], wanted: str) -> list[Numbered]:
    """The lines that have this text, without regard to case."""
    wanted = wanted.casefold()
    return [line for line in lines if wanted in line[1].casefold()] if wanted else list(lines)
