"""The page of `mnist-suite bench search`, from its figures alone.

mnist-suite bench search --json > results/search.json
python -m suite.bench.search_page results/search.json results/search.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from suite.bench.search_replay import RULES
from suite.bench.search_table import IMAGES, RECIPES, table


def page(found: dict[str, Any]) -> str:
    """The Markdown page of the figures in `found`, as `mnist-suite bench search --json` prints them."""
    figures = {figure["name"]: figure for figure in found["figures"]}
    cases = list(dict.fromkeys(name.rsplit(".", 2)[0] for name in figures if name.endswith(".gain")))
    cases = list(dict.fromkeys(tuple(case.split(".")[1:3]) for case in cases))
    machine = found["machine"]
    replays = next(f["how"] for name, f in figures.items() if name.endswith(".gain")).rpartition(", ")[2]
    counts = ", ".join(f"{model} {len(table(model).points)}" for model in RECIPES)
    lines = [
        "# Which search finds the most for its cost?",
        "",
        _answer(figures, cases),
        "",
        f"Searches over learning rate, momentum and batch size, replayed on recorded trainings on MNIST ({counts} "
        f"configurations, two seeds, {IMAGES:,} validation images). *Gain* is the accuracy of the winner over that of "
        "the default recipe, in percentage points, both with the seed that the search does not see; *cost* is the time "
        "of all its trainings, over that of TPE without pruning at as many trials. Intervals are of the mean over the "
        "replays, 95 %; they do not cover that all replays share two recorded seeds. *In pairs* is our gain less that "
        "of the other search, replay by replay; the intervals of one table hold together, by Bonferroni. A bound of "
        "0.000 counts as zero.",
        "",
        f"Each row has {replays}. *Ours* is what `sweep` does: short complete trainings, of which the best "
        "ninth goes on (docs/search.md); *two stages* has short trainings of two lengths. Rows *at equal cost* end "
        "when they have taken the time of ours. A search ranks by one seed's accuracy on the 6,000 images, and its "
        "gain is that of the other seed on the same images.",
        "",
        f"Obtained by `mnist-suite bench search` on {machine['date']}, the page by `suite/bench/search_page.py`; "
        "`suite/bench/search_record.py` tells how the trainings were recorded.",
    ]
    for model, trials in cases:
        prefix = f"search.{model}.{trials}"
        lines += [
            "",
            f"## {model}, {trials} trials",
            "",
            "| search | gain | cost | ours, in pairs |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name in [*RULES, *(f"{name}, at equal cost" for name in RULES)]:
            key = name.replace(",", "").replace(" ", "-")
            if f"{prefix}.{key}.gain" not in figures:
                continue
            gain, cost = figures[f"{prefix}.{key}.gain"], figures[f"{prefix}.{key}.cost"]
            pair = figures.get(f"{prefix}.ours-less-{key}")
            cells = [name, _with_interval(gain), f"{cost['value']:.2f}", _with_interval(pair) if pair else ""]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _answer(figures: dict[str, dict[str, Any]], cases: list[tuple[str, str]]) -> str:
    """Of how many others ours is ahead and behind, where the interval of the pairs excludes zero."""
    ahead, behind = [], []
    for model, trials in cases:
        start = f"search.{model}.{trials}.ours-less-"
        pairs = [tuple(map(float, _bounds(figure))) for name, figure in figures.items() if name.startswith(start)]
        case = f"({model}, {trials} trials)"
        ahead.append(f"{sum(low > 0 for low, _ in pairs)} of {len(pairs)} {case}")
        if below := sum(high < 0 for _, high in pairs):
            behind.append(f"{below} {case}")
    costs = [figures[f"search.{model}.{trials}.ours.cost"]["value"] for model, trials in cases]
    return (
        "**In paired replays our search adds more accuracy to the default recipe than "
        f"{', '.join(ahead)}; it adds less than {', '.join(behind) or 'none of them'}. The other differences may be "
        f"chance. It takes {min(costs):.2f} to {max(costs):.2f} of the time of TPE without pruning.**"
    )


def _bounds(figure: dict[str, Any]) -> tuple[str, str]:
    low, high = figure["how"].partition("95 % interval ")[2].split(",")[0].split(" to ")
    return low, high


def _with_interval(figure: dict[str, Any]) -> str:
    low, high = _bounds(figure)
    return f"{figure['value']:+.3f} ({low} to {high})"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(json.loads(Path(sys.argv[1]).read_text())))
