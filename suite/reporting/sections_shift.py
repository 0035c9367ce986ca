"""Robustness: how the best models answer corrupted pictures, and characters drawn in fonts."""

from __future__ import annotations

from collections.abc import Mapping

from suite.ranking.shift import Shift, amount
from suite.reporting import plots_shift
from suite.reporting.document import Block, Gallery, Picture, Section, Table, Text, known
from suite.reporting.facts import Facts
from suite.reporting.text import interval, percent, points


def shift(facts: Facts) -> Section | None:
    parts = {"validation": facts.shifts, "test": facts.test_shifts}
    blocks = [block for part, found in parts.items() if found for block in _of_part(facts, part, found)]
    if not blocks:
        return None
    note = (
        "Accuracy under corruptions of stated strength, without training on them (`evaluate --shift`). Lengths are "
        "pixels of a picture of 28 pixels a side. The mean counts every corruption the same; its interval is Student's "
        "t over the pictures. Drops are paired over the pictures, with Newcombe's interval; others are Wilson's."
    )
    return Section("Robustness", [Text(note), *blocks])


def _of_part(facts: Facts, part: str, found: Mapping[str, Shift]) -> list[Block]:
    first = next(iter(found.values()))
    rows = [_summary(arm, one) for arm, one in found.items()]
    head = ("arm", "trial", "as they are", "mean", "95 %", "worst", "accuracy", "drop", "95 %", "fonts", "of", "95 %")
    caption = f"On {first.images:,} {part} images; drops in percentage points."
    picture = Picture(
        f"shift-{part}",
        f"Accuracy under corruptions, on {part} images",
        "Accuracy against the level of each corruption, one line an arm, with 95 % bands",
        lambda: plots_shift.by_level(found, facts.looks),
    )
    return [known(head, rows, caption), Gallery([picture]), _levels(found)]


def _summary(arm: str, one: Shift) -> list[str]:
    kind, level = one.worst
    drop, fonts = one.drop(level), one.font_accuracy
    return [
        arm,
        one.trial[:4],
        percent(one.clean.value),
        percent(one.mean),
        interval(*one.interval),
        f"{kind.name} {amount(kind, level)}",
        percent(one.accuracy(level).value),
        points(-drop.value),
        f"{points(-drop.high)} to {points(-drop.low)}",
        percent(fonts.value) if fonts else "-",
        f"{one.classes * len(one.fonts):,} in {len(one.fonts)} fonts" if fonts else "-",
        interval(fonts.low, fonts.high) if fonts else "-",
    ]


def _levels(found: Mapping[str, Shift]) -> Table:
    """Accuracy at every level, an arm a column."""
    first = next(iter(found.values()))
    rows = [
        [
            kind.name,
            amount(kind, level),
            *(percent(one.accuracy(one.corruptions[i].levels[j]).value) for one in found.values()),
        ]
        for i, kind in enumerate(first.corruptions)
        for j, level in enumerate(kind.levels)
    ]
    return Table(("corruption", "level", *found), rows)
