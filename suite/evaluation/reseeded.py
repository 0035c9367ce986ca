"""Trials of a search to be trained again in full, with fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence

from suite.spec import Trial
from suite.spec.seeds import mix

JUDGED = ("rungs", "stages")  # fields by which a search ends a trial early or trains it in parts


def fresh_seeds(base: int, count: int) -> list[int]:
    """Seeds that derive from `base` alone, so that every recipe gets the same ones and runs can be compared in pairs.

    Those of another base differ, and so do those of searches.
    """
    return [mix(base, k) % 2**31 for k in range(count)]


def reseeded(trial: Trial, seeds: Sequence[int], *, place: str, threads: int) -> list[Trial]:
    """The trial under each of the seeds, to be trained in full on the device `place` with `threads` CPU threads."""
    changes = {key: () for key in JUDGED if key in Trial.model_fields}
    changes |= {"caps": None, "device": place, "threads": threads}
    return [trial.model_copy(update={**changes, "seed": seed}) for seed in seeds]
