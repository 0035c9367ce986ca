"""The commands of `mnist-suite` that the dashboard starts, as argument lists, and how they are started.

A command runs in a session of its own and writes to a file, so it outlives the dashboard, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from suite.errors import InputError, expand_user
from suite.interpreter import command
from suite.spec import NAME, Experiment
from suite.store.outputs import check_new_folder
from suite.store.study import StudyDir

PROGRAM = tuple(command())
ENGINES = ("local",)
CHECK_SECONDS = 60.0  # for a file of the user's to declare its experiment
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


def problems(form: Form, experiment: Experiment | str, results: Path) -> dict[str, str]:
    """The errors in a form, by field; empty if it is valid. `experiment` is the one it names, or why there is none."""
    found = {"experiment": experiment} if isinstance(experiment, str) else {}
    study = form.study.strip()
    if not re.fullmatch(NAME, study):
        found["study"] = "letters, digits, '.', '_' and '-', starting with a letter or digit"
    elif StudyDir(results, study).exists():
        found["study"] = "this study exists: choose another name, or resume it"
    for name, least in (("trials", 1), ("workers", 1), ("limit", 20)):
        text = getattr(form, name).strip()
        if text and not (text.isdecimal() and int(text) >= least):
            found[name] = f"a whole number from {least} on"
    if isinstance(experiment, Experiment):
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


def is_own_file(reference: str) -> bool:
    """Whether an experiment is a file of the user's, which is run to know what it declares, and not a built-in one."""
    return reference.endswith(".py") or "/" in reference


async def declared(reference: str, environment: Mapping[str, str]) -> Experiment:
    """The experiment of a user's file. A process of its own runs the file, as `sweep --dry-run`, and may be cancelled.

    Raises InputError where the file is not valid, or takes more than `CHECK_SECONDS`.
    """
    pipe = subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "sweep", "--dry-run", "--", reference),
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env=dict(environment),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{reference} cannot be checked: {error}.") from None
    try:
        output, errors = await asyncio.wait_for(process.communicate(), CHECK_SECONDS)
    except TimeoutError:
        raise InputError(f"{reference} was not loaded within {CHECK_SECONDS:.0f} s.") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise InputError(last_line(errors.decode(errors="replace")).removeprefix("mnist-suite: "))
    _, _, text = ("\n" + output.decode(errors="replace")).rpartition("\n{")  # the file itself may print lines before
    try:
        return Experiment.model_validate_json("{" + text)
    except ValidationError:
        raise InputError(f"{reference} declares an experiment that this version cannot read.") from None


def last_line(text: str) -> str:
    """The last line of a command's output that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def new_folder(typed: str) -> Path:
    """The folder to export to. Raises InputError unless it can be written, and is new or empty."""
    if not typed.strip():
        raise InputError("say where")
    place = expand_user(typed)
    check_new_folder(place)
    return place


def model_folder(typed: str) -> Path:
    """The folder of an exported model. Raises InputError unless it exists."""
    try:
        place = expand_user(typed)
        if typed.strip() and place.is_dir():
            return place
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    raise InputError("there is no such directory")


def refusal(folder: Callable[[str], Path], typed: str) -> str | None:
    """Why `folder` does not accept what was typed, or None."""
    try:
        folder(typed)
    except InputError as error:
        return str(error)
    return None


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
