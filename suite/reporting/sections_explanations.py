"""What the answers of the best models depend on, where `mnist-suite explain` has looked into it."""

from __future__ import annotations

from suite.reporting import plots_explanations
from suite.reporting.document import Gallery, Picture, Section, Text
from suite.reporting.facts import Facts

SHOWN = 5  # explanations of each arm

KEY = (
    "Maps of what the class that was answered depends on: saliency (gradients), integrated gradients (with the steps "
    "that they took, and by how much their sum misses the difference of the scores), Grad-CAM (with its layer and the "
    "cells of its map) and occlusion (with its window). Below each stands its check: del. is the mean probability of "
    "the class while pixels of the foreground are removed, the most important ones first, rnd. the same for pixels in "
    "random order. Where del. is not the lower one, the map does not show what the answer depends on."
)


def explanations(facts: Facts) -> Section | None:
    pictures = [
        Picture(
            f"explained-{arm}",
            f"{arm}: why it answered so",
            f"Pictures that {arm} was asked to explain, each with the maps of its answer",
            lambda found=found: plots_explanations.table(found.explanations[:SHOWN], found.classes),
        )
        for arm, found in facts.explanations.items()
    ]
    if not pictures:
        return None
    notes = dict.fromkeys(note for found in facts.explanations.values() for note in found.notes)
    return Section("Why it answers so", [Text(KEY), *map(Text, notes), Gallery(pictures)])
