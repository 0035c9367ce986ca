"""`python -m suite.cli` runs the command line, and so does the console script."""

import signal
from typing import NoReturn

from suite.interpreter import isolate


def run() -> NoReturn:
    """Run the command line. Nothing but our own code and Python's is imported before the import path is in order."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends it without a traceback
    isolate()
    from suite.cli.main import main

    main()


if __name__ == "__main__":
    run()
