"""The commands of `mnist-suite` that the dashboard starts, as argument lists, and how they are started.

A command runs in a session of its own and writes to a file, so it outlives the dashboard, however that ends.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.errors import InputError
from suite.spec import NAME, Experiment
from suite.spec.load import load_experiment
from suite.store.study import StudyDir

PROGRAM = (sys.executable, "-m", "suite.cli")
ENGINES = ("local",)
DEVICE = re.compile(r"auto|cpu|mps|cuda|cuda:\d+(,cuda:\d+)*")


@dataclass(frozen=True)
class Form:
    """The launch form as typed, unchecked."""

    experiment: str = "mnist"
    study: str = ""
    trials: str = ""
    workers: str = ""
    engine: str = "local"
    device: str = "auto"
    limit: str = ""
    arms: tuple[str, ...] = ()  # empty: all


def sweep_words(form: Form, results: Path) -> list[str]:
    """The arguments after `mnist-suite` that start the sweep of a form."""
    words = ["sweep", form.experiment.strip(), "--study", form.study.strip()]
    if form.trials.strip():
        words += ["--trials", form.trials.strip()]
    if form.arms:
        words += ["--arms", ",".join(form.arms)]
    if form.workers.strip():
        words += ["--workers", form.workers.strip()]
    if form.engine != "local":
        words += ["--engine", form.engine]
    if form.device.strip() not in ("", "auto"):
        words += ["--device", form.device.strip()]
    if form.limit.strip():
        words += ["--limit", form.limit.strip()]
    return [*words, "--results", str(results)]


def resume_words(study: str, workers: int, results: Path) -> list[str]:
    """Continue a study with the settings of its study.json, on as many workers as before."""
    many = ["--workers", str(workers)] if workers > 1 else []
    return ["sweep", "--study", study, *many, "--resume", "--results", str(results)]


def stop_words(study: str, results: Path) -> list[str]:
    return ["stop", study, "--results", str(results)]


def export_words(study: str, trial: str, to: Path, results: Path) -> list[str]:
    return ["export", f"{study}/{trial}", "--to", str(to), "--results", str(results)]


def typed(words: Sequence[str]) -> str:
    """The command line, quoted for a shell."""
    return shlex.join(["mnist-suite", *words])


def problems(form: Form, results: Path) -> dict[str, str]:
    """The errors in a form, by field; empty if it is valid."""
    found: dict[str, str] = {}
    experiment: Experiment | None = None
    try:
        experiment = load_experiment(form.experiment.strip())
    except InputError as error:
        found["experiment"] = str(error)
    study = form.study.strip()
    if not re.fullmatch(NAME, study):
        found["study"] = "letters, digits, '.', '_' and '-', starting with a letter or digit"
    elif StudyDir(results, study).exists():
        found["study"] = "this study exists: choose another name, or resume it"
    for name, least in (("trials", 1), ("workers", 1), ("limit", 20)):
        text = getattr(form, name).strip()
        if text and not (text.isdecimal() and int(text) >= least):
            found[name] = f"a whole number from {least} on"
    if experiment is not None:
        unknown = [arm for arm in form.arms if arm not in experiment.arms]
        if unknown:
            found["arms"] = f"no arm {', '.join(unknown)} in {form.experiment}"
        arms = len(form.arms or experiment.arms)
        if "trials" not in found and form.trials.strip() and int(form.trials) < arms:
            found["trials"] = f"fewer than the {arms} arms: some would get none"
    if form.device.strip() and not DEVICE.fullmatch(form.device.strip()):
        found["device"] = "auto, cpu, mps, cuda, cuda:N or several as in cuda:1,cuda:3"
    if form.engine not in ENGINES:
        found["engine"] = f"one of {', '.join(ENGINES)}"
    return found


def start(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `mnist-suite WORDS` detached, its output appended to `log`. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment if environment is not None else os.environ),
        )


def free_name(wanted: str, results: Path) -> str:
    """`wanted`, or with the first number appended for which no study exists: mnist, mnist-2, mnist-3."""
    stem = re.sub(r"-\d+$", "", wanted)
    name, n = wanted, 1
    while (results / name).exists():
        n += 1
        name = f"{stem}-{n}"
    return name
