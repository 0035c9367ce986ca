"""Loads experiment files: the built-in ones in experiments/ by name, and others by path.

An experiment file is Python code, and loading it runs it; SECURITY.md says what that means.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from pydantic import ValidationError

from suite.errors import InputError, expand_user
from suite.spec.base import first_error
from suite.spec.experiment import Experiment


def experiment_names() -> list[str]:
    """The names of the built-in experiments, sorted."""
    package = importlib.util.find_spec("experiments")
    places = package.submodule_search_locations if package else None
    return sorted(p.stem for place in places or [] for p in Path(place).glob("[a-z]*.py"))


def load_experiment(reference: str) -> Experiment:
    """The value of EXPERIMENT in an experiment file.

    Args:
        reference: The name of a built-in experiment, or a path: it ends in ".py" or has a "/".

    Raises:
        InputError: There is no such experiment, or its file is not valid.
    """
    if reference.endswith(".py") or "/" in reference:
        path = expand_user(reference)
        if not path.is_file():
            raise InputError(f"There is no experiment file {reference}.")
        spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    else:
        if reference not in experiment_names():
            raise InputError(
                f"There is no experiment '{reference}'; built in are: {', '.join(experiment_names())}. "
                "To use a file of your own, give its path, for example ./my_experiment.py."
            )
        spec = importlib.util.find_spec(f"experiments.{reference}")
    if spec is None or spec.loader is None:
        raise InputError(f"{reference} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise InputError(f"{reference} declares an experiment that is not valid: {first_error(error)}.") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may raise anything, SystemExit included
        raise InputError(f"{reference} could not be loaded: {type(error).__name__}: {error}") from None
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise InputError(f"{reference} declares no experiment: it needs EXPERIMENT = Experiment(...).")
    return experiment
