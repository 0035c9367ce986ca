"""What a server takes of a request at most, and how it refuses one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients may use of the server."""

    body: int = 8 << 20  # bytes of one request
    pixels: int = 16_000_000  # of one picture; of a JPEG that is decoded at a fraction of its size, five times as many
    seconds: float = 10.0  # to send a request, to wait for an answer, and to take it
    queue: int = 256  # pictures that are read, decoded or waiting; also the most of one request
    connections: int = 1000
    memory: int = 256 << 20  # bytes of all bodies that are held at once


@dataclass(eq=False)
class Refused(Exception):
    """A request that gets an error for an answer."""

    status: int  # of HTTP
    reason: str  # a sentence for the client
    headers: Mapping[str, str] = field(default_factory=dict)


def busy(reason: str) -> Refused:
    """The server has as much to do as it takes; the client may try again."""
    return Refused(503, reason, {"Retry-After": "1"})
