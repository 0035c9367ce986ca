"""Loads experiment files: the built-in ones in experiments/ by name, and others by path.

An experiment file is Python code, and loading it runs it; SECURITY.md says what that means.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from suite.errors import InputError, expand_user
from suite.interpreter import ROOT
from suite.spec.base import first_error
from suite.spec.experiment import Experiment

BUILT_IN = ROOT / "experiments"


def experiment_names() -> list[str]:
    """The names of the built-in experiments, sorted."""
    return sorted(path.stem for path in BUILT_IN.glob("[a-z]*.py"))


def load_experiment(reference: str) -> Experiment:
    """The value of EXPERIMENT in an experiment file. The file may import modules and packages that lie beside it.

    Args:
        reference: The name of a built-in experiment, or a path: it ends in ".py" or has a "/".

    Raises:
        InputError: There is no such experiment, or its file is not valid.
    """
    if reference.endswith(".py") or "/" in reference:
        path = expand_user(reference)
        if not path.is_file():
            raise InputError(f"There is no experiment file {reference}.")
    else:
        path = BUILT_IN / f"{reference.replace('-', '_')}.py"  # `batch-size`, of which a module has no name
        if path.stem not in experiment_names():
            raise InputError(
                f"There is no experiment '{reference}'; built in are: {', '.join(experiment_names())}. "
                "To use a file of your own, give its path, for example ./my_experiment.py."
            )
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path.absolute())
    if spec is None or spec.loader is None:
        raise InputError(f"{reference} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        with _neighbours(path.absolute().parent):
            sys.modules[spec.name] = module  # dataclasses look for the module of a class there
            spec.loader.exec_module(module)
    except ValidationError as error:
        raise InputError(f"{reference} declares an experiment that is not valid: {first_error(error)}.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may raise anything, SystemExit included
        raise InputError(f"{reference} could not be loaded: {type(error).__name__}: {error}") from None
    finally:
        sys.modules.pop(spec.name, None)
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise InputError(f"{reference} declares no experiment: it needs EXPERIMENT = Experiment(...).")
    return experiment


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Context in which modules and packages in `folder` can be imported, as in a script that lies there.

    Unlike in a script, they replace none of Python's own modules. They are forgotten at the end, so that files of two
    folders may have neighbours of one name.
    """
    finder, before = _Beside(folder), set(sys.modules)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()  # a neighbour may have been written a moment ago
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in finder.found:
                del sys.modules[name]


class _Beside:
    """Finds modules in one folder, before those of the import path; folders without __init__.py after them."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.found: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or name in sys.stdlib_module_names:
            return None
        find = importlib.machinery.PathFinder.find_spec
        spec = find(name, [self.folder])
        if spec is None or (spec.loader is None and find(name) is not None):
            return None
        self.found.add(name)
        return spec
