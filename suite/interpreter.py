"""How Python runs the suite: where its own code is found, and how it starts processes of its own.

The names `suite`, `tui` and `experiments` are common, and `python -m` and PYTHONPATH may put somebody else's files
before ours, or a `random.py` before Python's own. Whatever starts the suite calls `isolate` first, and every child
process that runs our code is started by `command`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(os.path.abspath(__file__)).parents[1]  # of this installation: it holds suite/, tui/ and experiments/


def command(*words: str, module: str = "suite.cli") -> list[str]:
    """The command that runs a module of this installation as a program, `mnist-suite WORDS` by default.

    The program is named by its path. Neither the current folder nor PYTHONPATH decides what is run.
    """
    return [sys.executable, "-P", os.path.join(ROOT, "suite", "interpreter.py"), module, *words]


def isolate() -> None:
    """Import our own modules from this installation, and let the current folder replace none of anybody's.

    This installation becomes the first place of `sys.path`. The current folder leaves it where `python -m` has put it
    there; where PYTHONPATH names it, it becomes the last place, and so do the other relative entries. Python processes
    that are started from here, such as those of `multiprocessing`, do not look into the current folder either.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        here = os.getcwd()
    except OSError:  # it has been deleted
        here = ""
    if not sys.flags.safe_path and sys.path[0] in ("", here):
        del sys.path[0]
    own, given = str(ROOT), os.environ.get("PYTHONPATH", "")
    entries = given.split(os.pathsep) if given and here else []
    last = [os.path.normpath(os.path.join(here, p)) for p in entries if p == here or not os.path.isabs(p)]
    sys.path[:] = [own, *(p for p in sys.path if p not in (own, *last)), *(p for p in last if p != own)]


if __name__ == "__main__":
    isolate()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
