"""What can go wrong in a way the user can act on.

The command line turns these into one paragraph on stderr and an exit code; nothing else catches them.
"""

from __future__ import annotations


class InputError(Exception):
    """The request cannot be carried out as it was made (exit code 2).

    The message is one paragraph: what is wrong, where, and what to do about it.
    """


class WorkError(Exception):
    """The request was fine but the work failed (exit code 1), for example a download that broke off."""


def printable(text: str) -> str:
    """`text` with nothing in it that a terminal would obey: names and files of others are quoted in what we say."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
