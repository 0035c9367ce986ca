"""Signals that ask for a stop, and the exit codes that follow."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from suite.execution.stop import Stop


class _Interrupted(BaseException):
    """A signal arrived before the work began, so that there is nothing to stop cleanly."""


@contextlib.contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """Within this context, signals request a clean stop by setting `stop.reason`.

    The signals are SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and, unless it is ignored as under nohup, SIGHUP. Before the work
    has begun (`stop.observed` is false) the first signal leaves the context. A second signal ends the process at once,
    which loses no data, since every file on disk is complete at any time.
    """

    from suite.cli import console

    def on_signal(number: int, _: Any) -> None:
        if stop.reason:
            if console.err.live:
                os.write(2, b"\x1b[?25h\n")  # show the cursor again, which the progress bar hides
            os._exit(_exit_code(signal.Signals(number).name))
        stop.reason = signal.Signals(number).name
        if not stop.observed:
            raise _Interrupted

    handled = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handled.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield
    except _Interrupted:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Terminated(SystemExit):
    """SIGTERM. No `except Exception` on its way to the end of the command takes it for an error of its own."""


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Within this context SIGTERM leaves it with exit code 143, so that what was started there is ended as well.

    Where the signal arrives in a callback whose exceptions Python drops, as in a finaliser, it is sent once more.
    """

    def on_signal(number: int, _: Any) -> None:
        raise _Terminated(_exit_code(signal.Signals(number).name))

    def on_dropped(dropped: Any) -> None:
        if dropped.exc_type is _Terminated:
            again = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))  # at once it would be dropped again
            again.daemon = True
            again.start()
        else:
            report(dropped)

    before, report = signal.signal(signal.SIGTERM, on_signal), sys.unraisablehook
    sys.unraisablehook = on_dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, before)


def exit_if_stopped(stop: Stop, advice: str, *, quiet: bool = False) -> None:
    """Print how to continue and end the command, if a stop was requested.

    Raises:
        typer.Exit: With code 130 after SIGINT, else 143.
    """
    from suite.cli import console

    if not stop.reason:
        return
    if not quiet:
        with contextlib.suppress(OSError):  # the terminal may be gone
            console.err.print(f"Stopped ({stop.reason}). {advice}")
    raise typer.Exit(_exit_code(stop.reason))


def _exit_code(reason: str) -> int:
    return 130 if reason == "SIGINT" else 143
