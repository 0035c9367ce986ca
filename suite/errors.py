"""Errors that the user can act on, and helpers to word them.

The command line prints their message as one paragraph on stderr and ends with their exit code.
"""

from __future__ import annotations

import os
from pathlib import Path


class InputError(Exception):
    """The request is not valid (exit code 2).

    The message is one paragraph: what is wrong, where, and how to correct it.
    """


class WorkError(Exception):
    """A valid request failed (exit code 1), for example because a download was interrupted."""


def printable(text: str) -> str:
    """The text with control characters and other unprintable ones escaped; newlines stay.

    Messages quote names and files of unknown origin, which must not send control sequences to the terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def expand_user(path: str | Path, given_by: str = "") -> Path:
    """A path that a user has given, with a leading "~" or "~user" replaced by the home directory.

    Expanding the result again changes nothing.

    Args:
        path: As it was given.
        given_by: The option or variable that it was given by, for the message.

    Raises:
        InputError: It is empty, no file can have this name, or the home directory is not known.
    """
    text = os.fspath(path)
    named = f"{given_by} {text!r}".lstrip()
    if not text.strip():
        raise InputError(f"{named} is empty; give the path of a file or folder.")
    if "\0" in text:
        raise InputError(f"{named} has a NUL character, which no file name can have.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError(f"{named} has a character that no file name can have: {text[error.start]!r}.") from None
    expanded = os.path.expanduser(text)  # unchanged where the home directory is not known
    if expanded.startswith("~/") or expanded == "~":
        raise InputError(f"{named} starts with a home directory, and HOME is not set; give the whole path.")
    if expanded.startswith("~"):
        raise InputError(
            f"{named} starts with the home directory of a user who does not exist; give the whole path, or ./~NAME for "
            "a file whose name starts so."
        )
    found = Path(expanded)  # "./~name" has become "~name", and "./ " has become " "
    return found.absolute() if str(found).startswith("~") or not str(found).strip() else found


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def as_clause(error: Exception) -> str:
    """`first_line` without a full stop at its end, for use within a sentence."""
    return first_line(error).rstrip(".")
