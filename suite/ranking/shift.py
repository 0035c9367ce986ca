"""How models answer corrupted pictures: what `evaluate --shift` leaves in a study.

results/<study>/shift.jsonl     one `Shift` a line, appended with one write

The last line that parses counts for a trial and a part of the data. It is one file a study, so that the leaderboard and
the dashboard need not look into every trial.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from suite.ranking.statistics import paired_difference, wilson
from suite.ranking.stored import Stored
from suite.spec import Count, Name, Unit
from suite.store.files import read_bytes
from suite.store.study import StudyDir

SHIFT_FILE = "shift.jsonl"

Part = Literal["validation", "test"]


class Level(Stored):
    """The answers at one level of a corruption, against those to the same pictures without it."""

    level: float  # lengths: in pixels of a picture of 28 pixels a side
    right: Count
    lost: Count  # wrong here, right without the corruption
    gained: Count  # right here, wrong without it


class Corrupted(Stored):
    """The answers under one kind of corruption."""

    name: str
    unit: str
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]  # mildest first


class FontAnswers(Stored):
    """The answers to the characters of one font."""

    name: str
    wrong: tuple[str, ...]  # classes that were not recognised


class Figure(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Shift(Stored):
    """How one model answers the pictures of one part of its data under every corruption, and the characters of fonts.

    For the same model, data and version it is the same in every run; `fonts` depends on the machine.
    """

    schema_version: Literal[1] = 1
    trial: Name  # of the search
    arm: str
    run: Name | None = None  # on test: the training of the final evaluation whose model this is; None: the trial itself
    weights_sha256: str | None = None
    dataset: str
    part: Part
    images: Annotated[Count, Field(ge=1)]
    right: Count  # of the pictures as they are
    corruptions: Annotated[tuple[Corrupted, ...], Field(min_length=1)]
    interval: tuple[Unit, Unit]  # 95 %, of `mean`
    fonts: tuple[FontAnswers, ...] = ()
    classes: Annotated[Count, Field(ge=1)]
    version: str = ""
    commit: str | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        found = [level for one in self.corruptions for level in one.levels]
        for level in found:
            if self.right - level.lost + level.gained != level.right or level.lost > self.right:
                raise ValueError("right answers must be those without a corruption, less the lost, plus the gained")
        if max(self.right, *(self.right + level.gained for level in found)) > self.images:
            raise ValueError("there are more right answers than images")
        return self

    @property
    def conditions(self) -> tuple[object, ...]:
        """What has to be the same for figures to be compared."""
        levels = [(one.name, one.unit, [level.level for level in one.levels]) for one in self.corruptions]
        return self.dataset, self.part, self.images, levels

    @property
    def clean(self) -> Figure:
        """Accuracy without a corruption."""
        accuracy = self.right / self.images
        return Figure(accuracy, *wilson(accuracy, self.images))

    @property
    def mean(self) -> float:
        """Mean accuracy over the corruptions, each of which counts the same. Fonts have no part in it."""
        return sum(self.of(one) for one in self.corruptions) / len(self.corruptions)

    @property
    def worst(self) -> tuple[Corrupted, Level]:
        """The corruption and its level with the fewest right answers."""
        return min(((one, level) for one in self.corruptions for level in one.levels), key=lambda pair: pair[1].right)

    @property
    def font_accuracy(self) -> Figure | None:
        """Accuracy over the characters of all fonts; None where none was drawn."""
        if not self.fonts:
            return None
        count = self.classes * len(self.fonts)
        accuracy = 1 - sum(len(font.wrong) for font in self.fonts) / count
        return Figure(accuracy, *wilson(accuracy, count))

    def of(self, one: Corrupted) -> float:
        """Mean accuracy over the levels of a corruption."""
        return sum(level.right for level in one.levels) / (len(one.levels) * self.images)

    def accuracy(self, level: Level) -> Figure:
        """With Wilson's interval."""
        accuracy = level.right / self.images
        return Figure(accuracy, *wilson(accuracy, self.images))

    def drop(self, level: Level) -> Figure:
        """Accuracy without the corruption less that with it, with Newcombe's interval for paired answers."""
        bounds = paired_difference(self.right - level.lost, level.lost, level.gained, self.images)
        return Figure((level.lost - level.gained) / self.images, *bounds)

    def as_dict(self) -> dict[str, Any]:
        """Everything, with the figures that follow from the counts, for JSON."""
        found = self.model_dump(mode="json")
        found |= {"accuracy": self.clean._asdict(), "mean": Figure(self.mean, *self.interval)._asdict()}
        worst, level = self.worst
        found["worst"] = {"name": worst.name, "level": level.level, **self.accuracy(level)._asdict()}
        found["font_accuracy"] = self.font_accuracy._asdict() if self.font_accuracy else None
        for one, shown in zip(self.corruptions, found["corruptions"], strict=True):
            shown["mean"] = self.of(one)
            for level, figures in zip(one.levels, shown["levels"], strict=True):
                figures |= {"accuracy": self.accuracy(level)._asdict(), "drop": self.drop(level)._asdict()}
        return found


def write_shift(study: StudyDir, found: Shift) -> None:
    """Add what was found to the study. Raises OSError."""
    path = study.path / SHIFT_FILE
    data = f"\n{found.model_dump_json()}\n".encode()  # the first line feed ends a line that may have been torn
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def shifts(study: StudyDir, part: Part = "validation") -> dict[str, Shift]:
    """What was found on this part of the data, by trial of the search. Lines that are damaged are left out."""
    try:
        lines = read_bytes(study.path / SHIFT_FILE).splitlines()
    except OSError:
        return {}
    found: dict[str, Shift] = {}
    for line in filter(None, lines):
        try:
            one = Shift.model_validate_json(line)
        except (ValidationError, ValueError, RecursionError):
            continue
        if one.part == part:
            found[one.trial] = one
    return found


def alike(found: Mapping[str, Shift]) -> dict[str, Shift]:
    """Those that can stand in one table with the first: the same data, and the same corruptions at the same levels.

    Others were measured by another version, or on another number of images.
    """
    first = next(iter(found.values()), None)
    return {key: one for key, one in found.items() if first is not None and one.conditions == first.conditions}


# --- for the terminal ---------------------------------------------------------------------------------------------


def as_text(found: Iterable[Shift]) -> str:
    """A table of one model with its intervals, or of several side by side, and what follows from it."""
    models = list(found)
    rows = _of_one(models[0]) if len(models) == 1 else _side_by_side(models)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in rows
    ]
    first = models[0]
    head = f"Accuracy on {first.images:,} {first.part} images of {first.dataset} under stated corruptions"
    return "\n".join([head, "", *lines, "", *(line for model in models for line in _summary(model))])


def amount(one: Corrupted, level: Level) -> str:
    """A level with its unit, for example "20 degrees"."""
    return f"{level.level:g} {one.unit}"


def _of_one(model: Shift) -> list[list[str]]:
    rows = [["corruption", "level", "accuracy", "95 %", "drop, points", "95 %"]]
    rows.append(["none", "", *_percent(model.clean), "", ""])
    for one in model.corruptions:
        for level in one.levels:
            drop = model.drop(level)
            lost = [f"{100 * drop.value:.2f}", f"{100 * drop.low:.2f} to {100 * drop.high:.2f}"]
            rows.append([one.name, amount(one, level), *_percent(model.accuracy(level)), *lost])
    return rows


def _percent(figure: Figure) -> list[str]:
    return [f"{100 * figure.value:.2f}%", f"{100 * figure.low:.2f} to {100 * figure.high:.2f}"]


def _side_by_side(models: list[Shift]) -> list[list[str]]:
    rows = [["corruption", "level", *(f"{model.arm} {model.trial[:4]}" for model in models)]]
    rows.append(["none", "", *(f"{100 * model.clean.value:.2f}%" for model in models)])
    for of_kind in zip(*(model.corruptions for model in models), strict=True):
        for of_level in zip(*(one.levels for one in of_kind), strict=True):
            cells = [f"{100 * model.accuracy(level).value:.2f}%" for model, level in zip(models, of_level)]
            rows.append([of_kind[0].name, amount(of_kind[0], of_level[0]), *cells])
    return rows


def _summary(model: Shift) -> list[str]:
    low, high = (100 * bound for bound in model.interval)
    one, level = model.worst
    name = f"{model.arm} {model.trial[:4]}"
    lines = [
        f"{name}: {100 * model.mean:.2f}% over the corruptions (95 % {low:.2f} to {high:.2f}), "
        f"{100 * model.clean.value:.2f}% without; worst: {one.name} {amount(one, level)}, "
        f"{100 * model.accuracy(level).value:.2f}%"
    ]
    if (fonts := model.font_accuracy) is not None:
        missed = sorted((font for font in model.fonts if font.wrong), key=lambda font: -len(font.wrong))
        most = "; ".join(f"{font.name}: {' '.join(font.wrong)}" for font in missed[:3])
        lines.append(
            f"  {len(model.fonts)} fonts: {100 * fonts.value:.2f}% of {model.classes * len(model.fonts)} characters "
            f"(95 % {100 * fonts.low:.2f} to {100 * fonts.high:.2f})" + (f"; most wrong: {most}" if most else "")
        )
    return lines
