"""The answer of a study in a sentence or two, with intervals. Which arm it names is decided on validation."""

from __future__ import annotations

from suite.gallery.figures import Figure, Figures
from suite.reporting.markdown import escape


def answer(found: Figures) -> str:
    """Where arms differ in the share of labels, the first arm for each share, else the first arm of all."""
    shares = sorted({found.get(arm, "labels").value or 1.0 for arm in found.arms})
    if len(shares) == 1:
        return f"**{_first(found, found.arms)}**"
    sentences = []
    for share in shares:
        arms = [arm for arm in found.arms if (found.get(arm, "labels").value or 1.0) == share]
        sentences.append(f"With {100 * share:g} % of the labels {_first(found, arms)}")
    return f"**{' '.join(sentences)}**"


def _first(found: Figures, arms: list[str]) -> str:
    """A sentence on the arm of `arms` that is first by validation accuracy, and what it is compared with."""
    first = max(arms, key=lambda arm: found.get(arm, "validation").value or 0.0)
    test = found.get(first, "test")
    text = f"{escape(first)} is first by validation accuracy: {_mean(test)} on test"
    for other, gap in _against(found, first, arms):
        text += f"; {_gap(gap)} {_verdict(gap)} {escape(other)}"
        if (times := _times(found, first, other)) is not None:
            text += f", {times}"
    return text + "."


def _mean(one: Figure) -> str:
    return f"{one} over {one.n} seeds" if one.low is not None else str(one)


def _against(found: Figures, first: str, arms: list[str]) -> list[tuple[str, Figure]]:
    """The arms that `first` is compared with, and by how much it is ahead; of many the one next to it, by validation,
    and the last that its experiment names."""
    gaps: dict[str, Figure] = {}
    for pair in found.pairs:
        one, _, other = pair.partition(" - ")
        gap = found.get(pair, "difference")
        if one == first:
            gaps[other] = gap
        elif other == first:
            gaps[one] = _turned(gap)
    if len(gaps) < 3:
        return list(gaps.items())
    rest = sorted(gaps, key=lambda arm: -(found.get(arm, "validation").value or 0.0))
    return [(rest[0], gaps[rest[0]])]


def _turned(gap: Figure) -> Figure:
    low, high = (None if bound is None else -bound for bound in (gap.high, gap.low))
    return Figure(gap.about, gap.name, -(gap.value or 0.0), low, high, gap.n)


def _gap(gap: Figure) -> str:
    return str(gap)


def _verdict(gap: Figure) -> str:
    """What the interval of a difference says."""
    if gap.low is None or gap.high is None:
        return "from"
    if gap.low > 0:
        return "over"
    return "below" if gap.high < 0 else "from, which may be chance,"


def _times(found: Figures, first: str, other: str) -> str | None:
    """How many times the FLOPs of training, where they differ by more than a tenth."""
    mine, theirs = (found.get(arm, "FLOPs of training").value for arm in (first, other))
    if not mine or not theirs or 0.9 < mine / theirs < 1.1:
        return None
    ratio = mine / theirs
    return f"for {ratio:.3g} times the FLOPs of training"
