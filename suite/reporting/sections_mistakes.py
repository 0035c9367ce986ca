"""How the best models err: mistakes, figures of every class, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from suite.ranking.mistakes import Mistakes
from suite.ranking.statistics import ClassFigures, per_class
from suite.reporting import plots_mistakes
from suite.reporting.document import Gallery, Picture, Section, Table, Text
from suite.reporting.facts import Facts
from suite.reporting.plots_style import labels, numbered
from suite.reporting.text import percent


def _by_arm(facts: Facts) -> tuple[Mapping[str, Mistakes], str]:
    """Mistakes by arm, on test where that is known, and in words which images and models they are of."""
    if facts.tested:
        return facts.tested, "test images, the first fresh model of each arm's finalist"
    return facts.mistakes, "validation images, the best trial of each arm"


def mistakes(facts: Facts) -> Section | None:
    found, where = _by_arm(facts)
    pictures = [
        Picture(
            f"confusion-{arm}",
            f"{arm}: {one.wrong:,} of {one.total:,} wrong",
            f"Confusion matrix of {arm} without its diagonal",
            lambda one=one: plots_mistakes.confusion(one.confusion, one.classes),
        )
        for arm, one in found.items()
    ]
    pictures += [
        Picture(
            f"worst-{arm}",
            f"{arm}: its most confident mistakes",
            f"Images that {arm} answered wrongly with the highest confidence",
            lambda one=one: plots_mistakes.worst(one.worst, one.classes),
        )
        for arm, one in found.items()
        if one.worst
    ]
    blocks = [Text(f"On the {where}."), *_key(facts.study.classes), Gallery(pictures)]
    return Section("Mistakes", blocks) if pictures else None


def _key(names: Sequence[str]) -> list[Text]:
    """The key to the classes' numbers, where the pictures cannot write their names."""
    if not numbered(names):
        return []
    pairs = ", ".join(f"{number} {name}" for number, name in zip(labels(names), names))
    return [Text(f"No font of this machine has all characters of the class names, so pictures number them: {pairs}.")]


def classes(facts: Facts) -> Section | None:
    found, where = _by_arm(facts)
    if not found:
        return None
    figures = {arm: per_class(one.confusion) for arm, one in found.items()}
    images = next(iter(figures.values()))
    rows = [
        [name, str(images[i].count)]
        + [
            f"{100 * of_arm[i].precision:.1f} / {100 * of_arm[i].recall:.1f} / {100 * of_arm[i].f1:.1f}"
            for of_arm in figures.values()
        ]
        for i, name in enumerate(facts.study.classes)
    ]
    means = [_means([one for one in of_arm if one.count]) for of_arm in figures.values()]
    rows.append(["mean of the classes", str(sum(one.count for one in images)), *means])
    caption = (
        f"Precision / recall / F1 in percent, on the {where}. The mean recall of the classes is the balanced accuracy."
    )
    return Section("Every class", [Table(("class", "images", *figures), rows, caption)])


def _means(figures: Sequence[ClassFigures]) -> str:
    parts = [[one.precision for one in figures], [one.recall for one in figures], [one.f1 for one in figures]]
    return " / ".join(f"{100 * sum(part) / len(part):.1f}" if part else "-" for part in parts)


def calibration(facts: Facts) -> Section | None:
    found, where = _by_arm(facts)
    found = {arm: one for arm, one in found.items() if one.bins}  # early versions wrote none on validation
    if not found:
        return None
    picture = Picture(
        "reliability",
        "Reliability: accuracy against confidence",
        "Accuracy against confidence in bins, with the diagonal of perfect calibration",
        lambda: plots_mistakes.reliability({arm: one.bins for arm, one in found.items()}, facts.looks),
    )
    note = (
        f"On the {where}. Marks below the diagonal are overconfident; they grow with the number of images. The "
        "expected calibration error (ECE) is the mean gap over 15 bins of equal width (Guo et al., 2017): 0 is "
        "perfect."
    )
    rows = [[arm, percent(one.ece)] for arm, one in found.items()]
    return Section("Calibration", [Text(note), Gallery([picture]), Table(("arm", "ECE"), rows)])
