"""How the dashboard ends when a signal or a fault ends it: the terminal is restored, and one sentence says why."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from suite.errors import InputError
from suite.store.files import cache_dir

GRACE = 3.0  # seconds for the application to close itself; without a terminal it may wait for it in vain

# Mouse reporting, bracketed paste, focus reporting, kitty's keyboard protocol and the alternate screen off; line wrap
# and the cursor on: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
RESTORE = b"".join(b"\x1b[?%dl" % mode for mode in (1000, 1002, 1003, 1006, 1015, 1016, 2004, 1004)) + (
    b"\x1b[<u\x1b[?7h\x1b[?1049l\x1b[?25h"
)


@contextlib.contextmanager
def by_signal(leave: Callable[[], object]) -> Iterator[list[signal.Signals]]:
    """Within this context, SIGINT, SIGTERM and SIGHUP call `leave` on the event loop; yields those that have arrived.

    A second signal, or the end of `GRACE` seconds, restores the terminal and ends the process. SIGHUP is left alone
    where it is ignored, as under nohup.
    """
    received: list[signal.Signals] = []
    try:
        attributes = termios.tcgetattr(0)
    except (OSError, termios.error):
        attributes = None

    def end() -> None:
        with contextlib.suppress(OSError):
            os.write(2, RESTORE)
        with contextlib.suppress(OSError, termios.error):
            if attributes is not None:
                termios.tcsetattr(0, termios.TCSANOW, attributes)
        with contextlib.suppress(OSError):
            os.write(2, f"mnist-suite: {sentence(received[0])}\n".encode())
        os._exit(exit_code(received[0]))

    def on_signal(number: int, _: object) -> None:
        received.append(signal.Signals(number))
        if len(received) > 1:
            end()
        timer.start()
        try:
            asyncio.get_running_loop().call_soon_threadsafe(leave)
        except RuntimeError:  # not started yet, or closed already
            sys.exit(exit_code(received[0]))

    timer = threading.Timer(GRACE, end)
    timer.daemon = True
    handled = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    handled = [number for number in handled if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield received
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process when the one that has started it is gone. What it would still write may block or fail."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(exit_code(signal.SIGTERM))

    threading.Thread(target=watch, name="parent", daemon=True).start()


def sentence(number: signal.Signals) -> str:
    return f"{number.name} ended the dashboard; the commands that it started go on."


def exit_code(number: signal.Signals) -> int:
    return 130 if number == signal.SIGINT else 143


def by_fault(error: BaseException) -> str:
    """A sentence on a fault of the dashboard itself. The traceback goes to a file in the cache."""
    words = " ".join(traceback.format_exception_only(error)[-1].split())
    place = ""
    with contextlib.suppress(OSError, InputError):
        path = cache_dir() / "dashboard-fault.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        place = f" The details are in {path}."
    return f"The dashboard ended by a fault of its own: {words[:300]}.{place} The commands that it started go on."
