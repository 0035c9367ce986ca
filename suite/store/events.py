"""The event log of a trial: one writer that appends lines, readers that tolerate a torn tail."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from suite.spec import Event, Line
from suite.store.files import open_plain


class EventWriter:
    """Appends lines to one events.jsonl; a torn tail of an earlier writer is closed off first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        reader = EventReader(path)
        lines = reader.poll()
        if os.fstat(self._handle).st_size > reader.offset:
            os.write(self._handle, b"\n")
            lines += reader.poll()  # the tail may have lacked nothing but its end of line
        self.seq = lines[-1].seq + 1 if lines else 0

    def append(self, event: Event) -> Line:
        line = Line(seq=self.seq, time=time.time(), event=event)
        data = (line.model_dump_json() + "\n").encode()
        if os.write(self._handle, data) != len(data):  # the next writer closes the torn line off
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.seq += 1
        return line

    def close(self) -> None:
        os.close(self._handle)


@dataclass
class EventReader:
    """Reads what is new in one events.jsonl. Keeps (inode, offset); starts over when the file was replaced."""

    path: Path
    offset: int = 0
    inode: int = 0
    bad: int = 0  # lines that did not parse

    def poll(self) -> list[Line]:
        try:
            with open(open_plain(self.path), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.inode or status.st_size < self.offset:
                    self.inode, self.offset, self.bad = status.st_ino, 0, 0
                if status.st_size == self.offset:
                    return []
                file.seek(self.offset)
                data = file.read()
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self.offset += end
        lines: list[Line] = []
        for raw in data[:end].splitlines():
            if not raw.strip():
                continue
            try:
                lines.append(Line.model_validate_json(raw))
            except (ValidationError, ValueError, RecursionError):
                self.bad += 1
        return lines
