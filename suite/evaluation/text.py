"""A final evaluation as text for a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from suite.ranking.final import ArmsEnsemble, Comparison, EnsembleFigures, FinalEvaluation, Finalist, PairedFigures
from suite.ranking.leaderboard import UNEVEN
from suite.ranking.statistics import Sample


def as_text(found: FinalEvaluation) -> str:
    """The evaluation for a terminal."""
    lines = [f"Test accuracy on {found.dataset}, {found.seeds} fresh seeds a finalist (* represents its arm)", ""]
    for row in found.finalists:
        lines += [_finalist_line(row), *_combined_lines(row, found.views)]
    lines.append("")
    lines += [_comparison_line(pair) for pair in found.comparisons]
    lines += [line for one in found.ensembles for line in _arms_lines(one, found.views)]
    count, last = len(found.readings), found.readings[-1]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.time))
    other = f", by other studies here: {n}" if (n := last.earlier_in_other_studies) else ""
    lines.append(f"\nReadings of the test images of {found.dataset} by this study: {count}, last {when}{other}.")
    return "\n".join(lines)


def _finalist_line(row: Finalist) -> str:
    test, mark = row.test, "*" if row.represents_arm else " "
    low, high = (100 * bound for bound in row.wilson)
    uneven = row.balanced is not None and abs(row.balanced.mean - test.mean) > UNEVEN
    balanced = f" (balanced {100 * row.balanced.mean:.2f}%)" if row.balanced is not None and uneven else ""
    return (
        f"{mark} {row.arm} {row.trial}: {100 * test.mean:.3f}%{balanced}{_spread(test)} n {test.n}; one model "
        f"{low:.2f} to {high:.2f}; in the search {100 * row.search_accuracy:.2f}% on validation (optimistic)"
    )


def _spread(test: Sample) -> str:
    if test.sd is None or test.low is None or test.high is None:
        return ""
    return f" sd {100 * test.sd:.3f}, 95% of the mean {100 * test.low:.2f} to {100 * test.high:.2f},"


def _combined_lines(row: Finalist, views: Sequence[str]) -> list[str]:
    """The ensemble of the runs, and test-time augmentation."""
    tta = f"with --tta {' '.join(views)}"
    lines = [f"    ensemble of its trainings: {_ensemble_text(row.ensemble)}"] if row.ensemble else []
    if (seen := row.viewed) is not None:
        lines.append(f"    {tta}: {100 * seen.test.mean:.3f}%{_spread(seen.test)} {_paired_text(seen.paired_t)}")
        lines += [f"    ensemble {tta}: {_ensemble_text(seen.ensemble)}"] if seen.ensemble else []
    return lines


def _arms_lines(one: ArmsEnsemble, views: Sequence[str]) -> list[str]:
    late = "" if one.planned else ". It was asked for after the test images were first read"
    lines = [f"Ensemble of {', '.join(one.arms)}: {_ensemble_text(one.plain)}{late}"]
    return lines + ([f"    with --tta {' '.join(views)}: {_ensemble_text(one.viewed)}"] if one.viewed else [])


def _ensemble_text(found: EnsembleFigures) -> str:
    low, high = (100 * bound for bound in found.wilson)
    mc = found.against_first
    return (
        f"{100 * found.accuracy:.3f}% ({low:.2f} to {high:.2f}), {found.members} models; against the first one McNemar "
        f"{mc.only_first}:{mc.only_second}, mid-p {mc.mid:.3g}"
    )


def _paired_text(t: PairedFigures) -> str:
    if t.difference is None:
        return "no seed in common"
    adjusted = f" (Holm {t.p_holm:.3g})" if t.p_holm is not None else ""
    p = f"p {t.p:.3g}{adjusted}" if t.p is not None else "p unknown"
    return f"{100 * t.difference:+.3f} points over {t.n} seeds, {p}"


def _comparison_line(pair: Comparison) -> str:
    mc = pair.mcnemar
    mid = f"mid-p {mc.mid:.3g} (Holm {mc.mid_holm or 0.0:.3g})"
    return (
        f"{pair.first} - {pair.second}: {_paired_text(pair.paired_t)}; McNemar {mc.only_first}:{mc.only_second}, {mid}"
    )
