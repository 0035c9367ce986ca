"""`python -m suite.cli` runs the command line, and so does the console script."""

from typing import NoReturn

from suite.interpreter import isolate


def run() -> NoReturn:
    """Run the command line. Nothing but our own code and Python's is imported before the import path is in order."""
    isolate()
    from suite.cli.main import main

    main()


if __name__ == "__main__":
    run()
