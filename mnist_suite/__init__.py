"""The program `mnist-suite`. It has a package of its own since its name, unlike `suite`, is nobody else's."""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line of this installation. Its code lies beside this package in a checkout, in a wheel within."""
    sys.path.insert(0, next(str(folder) for folder in Path(__file__).parents if (folder / "suite" / "cli").is_dir()))
    from suite.cli.__main__ import run

    run()
