"""A request to stop, shared by whoever receives it (a signal handler) and the controller that obeys it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Stop:
    """A request to end a run cleanly: every trial writes a checkpoint, and the study can be resumed.

    `reason` is None until something asks to stop, then its name ("SIGTERM", "stop.request"). `observed` says whether a
    controller polls `reason` at present. While none does there is nothing to checkpoint, so a signal handler may
    interrupt the process at once.
    """

    reason: str | None = None
    observed: bool = False

    @contextlib.contextmanager
    def observe(self) -> Iterator[None]:
        """Within this context, `reason` is polled."""
        self.observed = True
        try:
            yield
        finally:
            self.observed = False
