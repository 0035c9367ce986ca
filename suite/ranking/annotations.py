"""What a study's files say of its trials beside the trials' own: test accuracies, gains over the default, notes,
figures of exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from suite.errors import InputError
from suite.ranking.final import Finalist, final_evaluation
from suite.ranking.leaderboard import Row
from suite.ranking.shift import Shift
from suite.ranking.statistics import difference_interval
from suite.spec import Format, FormatFigures
from suite.store.notes import NO_NOTE, STUDY, Note
from suite.store.study import StudyDir

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Annotations:
    """What is known of the trials of one study."""

    tests: Mapping[str, Finalist] = field(default_factory=dict)  # by trial of the search
    defaults: Mapping[str, Row] = field(default_factory=dict)  # the finished trial of the default recipe, by arm
    shifts: Mapping[str, Shift] = field(default_factory=dict)  # on validation, by trial
    notes: Mapping[str, Note] = field(default_factory=dict)  # by trial; that of the study itself by `STUDY`
    exports: Mapping[str, Mapping[Format, FormatFigures]] = field(default_factory=dict)  # by trial

    def on(self, row: Row) -> Row:
        """The row with the fields that are known from here."""
        test, default = self.tests.get(row.trial), self.defaults.get(row.arm)
        low, high = test_interval(test) if test else (None, None)
        gain, bounds = _gain(row, default) if default else (None, (None, None))
        note, shift = self.notes.get(row.trial, NO_NOTE), self.shifts.get(row.trial)
        fonts = shift.font_accuracy if shift else None
        exports = self.exports.get(row.trial, {})
        onnx, int8 = exports.get("onnx"), exports.get("int8")
        return row._replace(
            test=test.test.mean if test else None,
            test_low=low,
            test_high=high,
            gain=gain,
            gain_low=bounds[0],
            gain_high=bounds[1],
            shift=shift.mean if shift else None,
            fonts=fonts.value if fonts else None,
            onnx_latency=onnx.latency_seconds if onnx else None,
            int8=int8.accuracy if int8 else None,
            int8_latency=int8.latency_seconds if int8 else None,
            int8_size=int8.bytes if int8 else None,
            tags=" ".join(note.tags) or None,
            note=note.text or None,
            archived=note.archived or self.notes.get(STUDY, NO_NOTE).archived,
        )


def test_interval(test: Finalist) -> tuple[float, float]:
    """95 %: of the mean over seeds, or of the images where there is one seed."""
    if test.test.low is None or test.test.high is None:
        return test.wilson
    return test.test.low, test.test.high


def _gain(row: Row, default: Row) -> tuple[float | None, Interval]:
    if row.trial == default.trial:
        return 0.0, (None, None)
    if row.accuracy is None or default.accuracy is None:
        return None, (None, None)
    value = row.accuracy - default.accuracy
    if row.state != "finished" or row.low is None or row.high is None or default.low is None or default.high is None:
        return value, (None, None)
    bounds = (row.low, row.high), (default.low, default.high)
    return value, difference_interval(row.accuracy, bounds[0], default.accuracy, bounds[1])


def tests(study: StudyDir, arms: Iterable[str]) -> dict[str, Finalist]:
    """The finalists of the last final evaluation by trial of the search; empty where there is none that is whole."""
    found = None
    with suppress(InputError):
        found = final_evaluation(study, list(arms))
    return {one.trial: one for one in found.finalists} if found else {}
