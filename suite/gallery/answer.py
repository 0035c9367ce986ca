"""The answer of a study in a sentence or two, with intervals. Which arm it names is decided on validation."""

from __future__ import annotations

from suite.gallery.figures import Figure, Figures
from suite.reporting.markdown import escape


def answer(found: Figures) -> str:
    """Where the study compares shares of the labels, the first arm for each share, else the first arm of all."""
    if not found.shares:
        return f"**{_first(found, found.arms)}**"
    sentences = []
    for share in found.shares:
        arms = [arm for arm in found.arms if (found.get(arm, "labels").value or 1.0) == share]
        sentences.append(f"With {100 * share:g} % of the labels {_first(found, arms)}")
    return f"**{' '.join(sentences)}**"


def _first(found: Figures, arms: list[str]) -> str:
    """A sentence on the arm of `arms` that is first by validation accuracy, and what it is compared with."""
    ranked = sorted(arms, key=lambda arm: -(found.get(arm, "validation").value or 0.0))
    test = found.get(ranked[0], "test")
    seeds = f" over {test.n} seeds" if (test.n or 0) > 1 else ""
    text = f"{escape(ranked[0])} is first by validation accuracy: {test}{seeds} on test"
    others = dict.fromkeys([*ranked[1:2], *arms[:1], *ranked[2:]])  # the next one and the baseline before the others
    compared = [(other, gap) for other in others if (gap := found.difference(ranked[0], other))]
    for other, gap in compared[:2]:
        said = [str(gap), _chance(found, gap), _times(found, ranked[0], other)]
        text += f"; against {escape(other)} {', '.join(part for part in said if part)}"
    return text + "."


def _chance(found: Figures, gap: Figure) -> str:
    """What to say of a difference that is not established over seeds, or not image by image."""
    if gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
        return "which may be chance"
    p = found.get(gap.about, "McNemar p").value
    return f"over seeds, not established image by image (p {p:.2g})" if p is not None and p >= 0.05 else ""


def _times(found: Figures, first: str, other: str) -> str:
    """How many times the FLOPs of training, where they differ by more than a tenth; of heads they are a part only."""
    if any(found.get(arm, "strategy").text.endswith("head") for arm in (first, other)):
        return ""
    mine, theirs = (found.get(arm, "FLOPs of training").value for arm in (first, other))
    if not mine or not theirs or 0.9 < mine / theirs < 1.1:
        return ""
    taught = any(found.get(arm, "teacher").text for arm in (first, other))
    return f"for {mine / theirs:.2g} times the FLOPs of training{', not counting the teacher' if taught else ''}"
