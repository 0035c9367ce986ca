"""`python -m suite.cli` runs the command line, and so does the console script."""

import signal
from typing import NoReturn

from suite.interpreter import isolate


def run() -> NoReturn:
    """Run the command line. Nothing but our own code and Python's is imported before the import path is in order."""
    _interrupts_end_silently()  # during the imports; `main` sets Python's handler again
    isolate()
    from suite.cli.main import main

    try:
        main()
    finally:
        _interrupts_end_silently()  # nothing is left that could be stopped cleanly


def _interrupts_end_silently() -> None:
    """Let Ctrl-C end the process at once and without a traceback, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    run()
