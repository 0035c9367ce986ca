"""Figures of the formats that trials were exported to: exports.jsonl in the study's directory.

Anyone who sees the results may export, so it is a log like notes.jsonl: each format of each export is one line,
appended with one `write`. The last line of a trial and a format holds. Lines that do not parse are left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from suite.spec.base import Spec, Timestamp
from suite.spec.formats import Format, FormatFigures
from suite.store.files import append_line, read_bytes
from suite.store.study import StudyDir

EXPORTS_FILE = "exports.jsonl"


class Exported(Spec):
    """One line: a trial's model in one format."""

    time: Timestamp
    trial: Annotated[str, Field(min_length=1, max_length=80)]
    format: Format
    figures: FormatFigures


def read_exports(study: StudyDir) -> dict[str, dict[Format, FormatFigures]]:
    """The figures of the last export of each trial to each format, by trial id. Empty where there is no file."""
    try:
        lines = read_bytes(study.path / EXPORTS_FILE).splitlines()
    except OSError:
        return {}
    found: dict[str, dict[Format, FormatFigures]] = {}
    for line in lines:
        try:
            one = Exported.model_validate_json(line)
        except (ValidationError, ValueError, RecursionError):
            continue
        found.setdefault(one.trial, {})[one.format] = one.figures
    return found


def write_exports(study: StudyDir, trial: str, formats: Mapping[Format, FormatFigures]) -> None:
    """Add the figures of an export. Raises OSError."""
    now = time.time()
    for name, figures in formats.items():
        line = Exported(time=now, trial=trial, format=name, figures=figures)
        append_line(study.path / EXPORTS_FILE, line.model_dump_json())
