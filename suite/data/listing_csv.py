"""Finds the pictures that a CSV file names: a header, a column of paths, one of labels, and maybe one of parts."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from suite.data.findings import PART_WORDS, TRAIN, UNLABELLED, Found, Row, part_of, some, why_no_picture
from suite.errors import InputError

# Names of columns, in lower case and without separators; of several in one file, the first in this order is read.
PATH_COLUMNS = (
    "path", "paths", "filepath", "filepaths", "imagepath", "imagepaths", "imgpath", "relpath", "filename", "filenames",
    "imagefilename", "imgfilename", "imagefile", "imgfile", "imagename", "imgname", "fname", "file", "files", "image",
    "images", "img", "picture", "photo",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "classes", "classname", "labelname", "target", "targets", "category", "categories",
    "categoryname", "y",
)  # fmt: skip
PART_COLUMNS = ("part", "split", "subset", "set", "dataset", "partition", "usage", "phase")

DELIMITERS = ",;\t|"


class Columns(NamedTuple):
    """The indices of the columns; `part` is None where there are no parts."""

    path: int
    label: int
    part: int | None


def find_in_csv(file: Path) -> Found:
    """The pictures in the rows of a CSV file. Relative paths are relative to its folder.

    All rows that cannot be used, and all files that are missing, are named at once. Raises InputError.
    """
    found = Found(root=file.parent, source=file)
    columns, table = _table(file, _text(file))
    faults: dict[str, list[str]] = {}
    missing: list[str] = []
    folders: dict[str, str] = {}
    for line, values in table:
        path, label, spelling = (values[i].strip() if i is not None and i < len(values) else "" for i in columns)
        part = TRAIN if columns.part is None else (part_of(spelling) or (None, ""))[0]
        if part is None:
            faults.setdefault("an unknown part", []).append(f"line {line} ({spelling!r})")
        elif not path:
            faults.setdefault("no path", []).append(f"line {line}")
        elif part == UNLABELLED:
            found.left_out.add("picture{s} without a class", name=spelling)
        elif not label:
            faults.setdefault("no label", []).append(f"line {line}")
        elif not (place := _locate(path, found.root, folders)):
            missing.append(path)
        else:
            label = unicodedata.normalize("NFC", label)
            if part == TRAIN:
                found.classes.add(label)
            if why := why_no_picture(place[0]):
                found.left_out.add(why)
            else:
                found.rows.append(Row(part, label, *place))
    if faults:
        named = "; ".join(f"{fault}: {some(lines)}" for fault, lines in faults.items())
        words = f" Known parts are {', '.join(PART_WORDS)}." if "an unknown part" in faults else ""
        raise InputError(f"{file} has rows with {named}.{words}")
    if missing:
        number = "1 picture that is" if len(missing) == 1 else f"{len(missing):,} pictures that are"
        raise InputError(
            f"{file} names {number} not there: {some(missing)}. Relative paths are relative to {found.root}."
        )
    return found


def _text(file: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {file}; csv:FILE takes one with a header, a column of paths and one of labels."
        ) from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file} is not text in UTF-8 (line {line}). Save it as CSV in UTF-8.") from None


def _table(file: Path, text: str) -> tuple[Columns, Iterator[tuple[int, list[str]]]]:
    """The columns, and number and values of each line below the header that is not empty.

    The delimiter is the one that separates the header into known names. csv.Sniffer would guess it from all characters,
    and is wrong where paths or labels look regular.
    """
    headers = {}
    for delimiter in DELIMITERS:
        header = next(_lines(file, text, delimiter, strict=False), None)
        if header is None:
            raise InputError(f"{file} is empty; it takes a header, a column of paths and one of labels.")
        headers[delimiter] = header[1]
        if columns := _columns(header[1]):
            lines = _lines(file, text, delimiter)
            next(lines)
            return columns, lines
    names = max(headers.values(), key=len)
    raise InputError(
        f"{file} has no column of paths and one of labels in its header; it has {some(map(repr, names))}. Name the "
        f"paths one of {', '.join(PATH_COLUMNS)}, and the labels one of {', '.join(LABEL_COLUMNS)}."
    )


def _lines(file: Path, text: str, delimiter: str, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Number and values of each line that is not empty. Strict reading refuses quotes that are out of place."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield reader.line_num, values
    except csv.Error as error:
        raise InputError(f"{file} is not CSV at line {reader.line_num}: {error}.") from None


def _columns(header: list[str]) -> Columns | None:
    """Where the known columns are; None unless paths and labels are among them."""
    names = [re.sub(r"[\W_]+", "", name.casefold()) for name in header]
    path, label, part = (
        next((names.index(known) for known in table if known in names), None)
        for table in (PATH_COLUMNS, LABEL_COLUMNS, PART_COLUMNS)
    )
    return None if path is None or label is None else Columns(path, label, part)


def _locate(text: str, root: Path, folders: dict[str, str]) -> tuple[str, str] | None:
    """The path of a picture as written and without links, or None if there is no such file.

    Backslashes are taken for separators, as Windows writes them, if the path as written leads nowhere.

    Args:
        text: the path in the CSV file.
        root: what it is relative to.
        folders: folder -> the same without links, filled here, since resolving is slow and folders repeat.
    """
    for candidate in dict.fromkeys((text, text.replace("\\", "/"))):
        path = str(root / candidate)
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                real = os.path.realpath(path, strict=True)
                mode = os.stat(real).st_mode
            else:
                folder, name = os.path.split(path)
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                real = os.path.join(folders[folder], name)
        except (OSError, ValueError):  # ValueError: a null byte
            continue
        if stat.S_ISREG(mode):
            return path, real
    return None
