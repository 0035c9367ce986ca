"""Declared experiments: the Python files in experiments/, and a person's own by path.

Such a file is code and runs when it is loaded; SECURITY.md says what that means.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from pydantic import ValidationError

from suite.errors import InputError
from suite.spec.experiment import Experiment, first_error


def names() -> list[str]:
    """The built-in experiments."""
    package = importlib.util.find_spec("experiments")
    places = package.submodule_search_locations if package else None
    return sorted(p.stem for place in places or [] for p in Path(place).glob("[a-z]*.py"))


def load(reference: str) -> Experiment:
    """A built-in experiment by name, or a file by path: whatever it calls EXPERIMENT. Raises InputError."""
    if reference.endswith(".py") or "/" in reference:
        path = Path(reference).expanduser()
        if not path.is_file():
            raise InputError(f"There is no experiment file {reference}.")
        spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    else:
        if reference not in names():
            raise InputError(
                f"There is no experiment '{reference}'; built in are: {', '.join(names())}. "
                "A file of your own works by path, for example ./my_experiment.py."
            )
        spec = importlib.util.find_spec(f"experiments.{reference}")
    if spec is None or spec.loader is None:
        raise InputError(f"{reference} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise InputError(f"{reference} declares an experiment that does not hold: {first_error(error)}.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it is somebody's code: whatever it raises is the answer
        raise InputError(f"{reference} could not be loaded: {type(error).__name__}: {error}") from None
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise InputError(f"{reference} declares no experiment: it needs EXPERIMENT = Experiment(...).")
    return experiment
