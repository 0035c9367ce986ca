"""Errors that the user can act on, and helpers to word them.

The command line prints their message as one paragraph on stderr and ends with their exit code.
"""

from __future__ import annotations

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


def expand_user(path: str | Path) -> Path:
    """The path with a leading "~" or "~user" replaced by the home directory.

    Raises:
        InputError: There is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{str(path)!r} starts with the home directory of a user who does not exist.") from None
