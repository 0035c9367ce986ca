"""The sections of a report, in their order."""

from __future__ import annotations

from suite.reporting.document import Section
from suite.reporting.facts import Facts
from suite.reporting.sections_accuracy import found, fronts, leaderboard
from suite.reporting.sections_costs import costs, provenance
from suite.reporting.sections_explanations import explanations
from suite.reporting.sections_mistakes import calibration, classes, mistakes
from suite.reporting.sections_protocol import final, protocol
from suite.reporting.sections_search import hyperparameters, labels, learning
from suite.reporting.sections_shift import shift

SECTIONS = (
    protocol,
    final,
    found,
    leaderboard,
    fronts,
    learning,
    labels,
    hyperparameters,
    mistakes,
    explanations,
    classes,
    calibration,
    shift,
    costs,
    provenance,
)


def sections(facts: Facts) -> list[Section]:
    """The report from top to bottom, without the sections that have nothing to show."""
    return [section for make in SECTIONS if (section := make(facts)) is not None]
