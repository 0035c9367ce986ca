"""Reading of final evaluations."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from suite.store.files import read_bytes
from suite.store.study import StudyDir, final_of

ERRORS = "test.json"  # of one trial: accuracy, calibration, confusion, worst mistakes

FACTS = {"accuracy", "images", "test_sha256", "ece", "classes", "confusion", "worst"}  # that are read from there

READINGS = "readings.jsonl"  # every look at the test images, one line each

OUTCOME = "evaluation.json"  # of the study


def readings(study: StudyDir) -> list[dict[str, Any]]:
    """Every look that this study has taken at the test images, the oldest first."""
    found: list[dict[str, Any]] = []
    try:
        lines = read_bytes(final_of(study).path / READINGS).decode(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):  # torn by a full disk; it hides none of the others
            found.append(json.loads(line))
    return [reading for reading in found if _is_reading(reading)]


def _is_reading(found: Any) -> bool:
    """Whether a line says what a reading has to: when, what, and how many others there were."""
    if not isinstance(found, dict) or not isinstance(when := found.get("time"), int | float) or not 0 <= when < 2**40:
        return False
    return isinstance(found.get("dataset"), str) and isinstance(found.get("earlier_in_other_studies"), int)


def tested_facts(directory: StudyDir, trial_id: str) -> dict[str, Any] | None:
    """A tested trial's accuracy, calibration, confusion and worst mistakes; None where it was not tested."""
    try:
        found = json.loads(read_bytes(directory.trial(trial_id).path / ERRORS))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.keys() >= FACTS else None


def outcome(study: StudyDir) -> dict[str, Any] | None:
    """The study's last final evaluation, or None."""
    try:
        found = json.loads(read_bytes(final_of(study).path / OUTCOME))
    except (OSError, ValueError, RecursionError):
        return None
    return {**found, "readings": readings(study)} if isinstance(found, dict) else None
