"""What a report asks of search spaces."""

from __future__ import annotations

from collections.abc import Sequence

from suite.spec import Choice, Range


def contains(choices: Range, value: object) -> bool:
    """Whether a trial's value lies in the range; in a study of others it may not."""
    if isinstance(choices, Choice):
        return value in choices.values
    return isinstance(value, int | float) and not isinstance(value, bool) and choices.low <= value <= choices.high


def joined(ranges: Sequence[Range]) -> Range:
    """One range that covers all those of the same kind as the first."""
    first = ranges[0]
    if isinstance(first, Choice):
        return Choice(values=tuple(dict.fromkeys(v for r in ranges if isinstance(r, Choice) for v in r.values)))
    alike = [r for r in ranges if isinstance(r, type(first))]
    return first.model_copy(update={"low": min(r.low for r in alike), "high": max(r.high for r in alike)})
