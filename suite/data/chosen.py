"""The picture files that a person names: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from suite.data.listing_folder import SYSTEM_FOLDERS, pictures_below
from suite.errors import InputError, expand_user


def chosen_pictures(named: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files, and what was left out in folders, in words.

    A folder stands for the pictures below it; hidden folders and those of the system are passed over. A pattern that
    the shell has not expanded, such as "photos/**/*.jpg", stands for what it matches outside these folders. Files are
    taken as they are named, whether they exist or not.

    Raises InputError for a folder without pictures and a pattern that matches nothing.
    """
    files: list[Path] = []
    left_out: list[str] = []
    for path in (one for given in named for one in _expanded(given)):
        if not os.path.isdir(path):
            files.append(path)
            continue
        found, others = pictures_below(path)
        if not found:
            also = f" Left out: {', '.join(others)}." if others else ""
            raise InputError(f"There is no picture in the folder {path}.{also}")
        files += found
        left_out += others
    return files, left_out


def _expanded(given: Path) -> list[Path]:
    path = expand_user(given)
    pattern = str(path)
    if os.path.lexists(path) or "\0" in pattern or not glob.has_magic(pattern):
        return [path]
    found = [one.split("/") for one in glob.glob(pattern, recursive=True)]
    taken = [one for one in found if not any(name.casefold() in SYSTEM_FOLDERS for name in one)]
    if not taken:
        raise InputError(f"No file matches {pattern!r}.")
    return [Path("/".join(one)) for one in sorted(taken)]
