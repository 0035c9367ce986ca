"""A trial's event log, events.jsonl: one writer that appends lines, readers that tolerate a torn last line.

Each line is a `spec.Line` as JSON: a sequence number, a time and an event. A line is appended with one `write` call,
so that a reader sees it whole or, after a crash or on a full disk, cut off. The next writer ends a cut-off line with a
line feed, and from then on it counts as damaged. Readers stop at the last line feed, skip lines that do not parse and
count them, and never write. Sequence numbers rise within the file; only two processes that both take one trial for
theirs can repeat them. Lines are not flushed to the disk one by one: after a power failure the end of the log may be
missing, which costs no result, since training goes on from the checkpoint.
"""

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
    """Appends events to one log. Raises OSError where the disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        reader = EventReader(path)
        lines = reader.poll()
        if os.fstat(self._handle).st_size > reader.offset:
            os.write(self._handle, b"\n")
            lines += reader.poll()  # the line may have lacked nothing but its end
        self.seq = lines[-1].seq + 1 if lines else 0  # of the next event

    def append(self, event: Event) -> Line:
        line = Line(seq=self.seq, time=time.time(), event=event)
        data = (line.model_dump_json() + "\n").encode()
        if os.write(self._handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.seq += 1
        return line

    def close(self) -> None:
        os.close(self._handle)


@dataclass
class EventReader:
    """Reads a log incrementally. Starts over when the file was replaced or has shrunk."""

    path: Path
    offset: int = 0  # bytes read so far
    inode: int = 0
    bad: int = 0  # lines that did not parse

    def poll(self) -> list[Line]:
        """The whole lines that were appended since the last call; none where the file cannot be read."""
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
