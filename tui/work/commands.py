"""The commands of `mnist-suite` that the dashboard starts, as argument lists, and what is asked before they start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from suite.errors import InputError, expand_user
from suite.interpreter import command
from suite.spec import Experiment
from suite.store.outputs import check_new_folder

PROGRAM = tuple(command())
CHECK_SECONDS = 120.0  # for `--dry-run` to answer


def resume_words(study: str, workers: int, results: Path) -> list[str]:
    """Continue a study with the settings of its study.json, on as many workers as before."""
    many = ["--workers", str(workers)] if workers > 1 else []
    return ["sweep", "--study", study, *many, "--resume", "--results", str(results)]


def stop_words(study: str, results: Path) -> list[str]:
    return ["stop", study, "--results", str(results)]


def final_words(study: str, results: Path) -> list[str]:
    return ["evaluate", study, "--final", "--results", str(results)]


def export_words(study: str, trial: str, to: Path, results: Path) -> list[str]:
    return ["export", f"{study}/{trial}", "--to", str(to), "--results", str(results)]


def explain_words(study: str, trial: str, results: Path) -> list[str]:
    return ["explain", f"{study}/{trial}", "--results", str(results)]


def typed(words: Sequence[str]) -> str:
    """The command line, quoted for a shell."""
    return shlex.join(["mnist-suite", *words])


async def dry_run(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """What `mnist-suite WORDS --dry-run --json` prints. A file of the user's is run by that process, which may be
    cancelled.

    Raises InputError where the command is refused, or takes more than `CHECK_SECONDS`.
    """
    pipe = subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, words[0], "--dry-run", "--json", *words[1:]),
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
            env=dict(environment),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"Not checked: {error}.") from None
    try:
        output, errors = await asyncio.wait_for(process.communicate(), CHECK_SECONDS)
    except TimeoutError:
        raise InputError(f"The check did not end within {CHECK_SECONDS:g} s.") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        said = last_line(errors.decode(errors="replace"))
        raise InputError(said.removeprefix("mnist-suite: ").removeprefix("Error: "))
    return output.decode(errors="replace")


def declared(output: str) -> Experiment:
    """The experiment at the end of what a dry run has printed. Raises InputError."""
    _, _, text = ("\n" + output).rpartition("\n{")  # the user's file itself may print lines before
    try:
        return Experiment.model_validate_json("{" + text)
    except ValidationError:
        raise InputError("It declares an experiment that this version cannot read.") from None


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


def free_name(wanted: str, results: Path) -> str:
    """`wanted`, or with the first number appended for which no study exists: mnist, mnist-2, mnist-3."""
    stem = re.sub(r"-\d+$", "", wanted)
    name, n = wanted, 1
    while (results / name).exists():
        n += 1
        name = f"{stem}-{n}"
    return name
