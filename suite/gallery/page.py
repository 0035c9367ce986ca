"""A page out of its figures, as Markdown. Nothing else is read, so that anyone can make a page again from its CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from suite.gallery.answer import answer
from suite.gallery.figures import Figures
from suite.ranking.formats import duration
from suite.reporting.markdown import escape
from suite.reporting.text import interval, percent, points, times

COMBINED = {  # how columns of such figures are called, where an arm has one
    "ensemble": "its seeds as one ensemble",
    "gain of the ensemble": "over the mean of its models",
    "ensemble p": "p against the first of them",
    "test-time augmentation": "with test-time augmentation, mean",
    "gain of views": "gain of the views",
    "ensemble with views": "ensemble with test-time augmentation",
}

COSTS = ("parameters", "trained parameters", "FLOPs an image", "FLOPs of training", "seconds of training", "memory")


def page(found: Figures) -> str:
    """The whole page."""
    parts = [
        f"# {escape(found.text('question'))}",
        answer(found),
        f"![Test results of every arm with their 95 % intervals](pictures/{found.name}.png)",
        _accuracies(found),
        _costs(found),
        _comparisons(found),
        _combined(found),
        _obtained(found),
        f"All figures of this page are in [{found.name}.csv]({found.name}.csv), and the page is made from them alone.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns in which every cell is "-" are left out."""
    cells = [list(row) for row in rows]
    kept = [i for i in range(len(head)) if any(row[i] != "-" for row in cells)]
    lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def anchor(about: str, name: str) -> str:
    """The row of the page that a quote of the figure `name` about `about` links to: each table has its own."""
    place = about.replace(" - ", "--").replace(" + ", "-and-").replace(" ", "-").replace(".", "-")
    if about.startswith("cost of "):  # of the whole study
        return place
    return f"cost-{place}" if name in COSTS else f"ensemble-{place}" if name in COMBINED else place


def _named(about: str, name: str) -> str:
    return f'<a id="{anchor(about, name)}"></a>{escape(about)}'


def _accuracies(found: Figures) -> str:
    head = ("arm", "what", "test, mean", "95 %", "n", "validation, mean", "recipe", "chosen by the search")
    rows = [
        [
            _named(arm, "test"),
            _what(found, arm),
            percent(found.get(arm, "test").value),
            _bounds(found, arm, "test"),
            str(found.get(arm, "test").n),
            percent(found.get(arm, "validation").value),
            escape(found.get(arm, "recipe").text) or "-",
            escape(tuned) if (tuned := found.get(arm, "tuned").text) not in ("", "-") else "-",
        ]
        for arm in found.arms
    ]
    return table(head, rows)


def _bounds(found: Figures, about: str, name: str) -> str:
    one = found.get(about, name)
    return interval(one.low, one.high)


def _what(found: Figures, arm: str) -> str:
    words = [found.get(arm, "backbone").text.removeprefix("timm:"), found.get(arm, "strategy").text]
    weights, teacher, labels = (found.get(arm, name) for name in ("weights", "teacher", "labels"))
    if weights.text not in ("", "random"):
        words.append({"pretrained": "ImageNet", "experiment": "own weights"}.get(weights.text, weights.text))
    if teacher.text:
        words.append("with a teacher")
    if labels.value is not None and labels.value < 1:
        words.append(f"{100 * labels.value:g} % of the labels")
    return escape(", ".join(words))


def _costs(found: Figures) -> str:
    rows = [[_named(arm, COSTS[0]), *(str(found.get(arm, name)) for name in _telling(found))] for arm in found.arms]
    return table(("arm", *_telling(found)), rows)


def _telling(found: Figures) -> list[str]:
    """The costs to show: trained parameters and memory only where they tell arms apart."""
    same = all(found.get(a, "trained parameters").value == found.get(a, "parameters").value for a in found.arms)
    return [name for name in COSTS if not (same and name in ("trained parameters", "memory"))]


def _comparisons(found: Figures) -> str:
    if not found.pairs:
        return ""
    count = found.number("comparisons")
    rows = [_pair(found, pair) for pair in found.pairs]
    head = (
        "arms",
        "difference, points",
        "95 %, together" if count > 1 else "95 %",
        "p over seeds",
        "only one right",
        "p, image by image",
    )
    adjusted = f", adjusted for {count} comparisons by Bonferroni" if count > 1 else ""
    note = (
        "Two tests that ask different questions. Over seeds: differences of mean test accuracy, paired, with Student's "
        f"interval and p{adjusted}. Image by image: *only one right* counts the test images that one of the two models "
        "of the first seed answers correctly, and the other does not; its p is McNemar's mid-p"
        f"{', adjusted by Holm' if count > 1 else ''}. A difference over seeds that is not one image by image may "
        "come out differently on other test images."
    )
    return f"{table(head, rows)}\n\n{note}"


def _pair(found: Figures, pair: str) -> list[str]:
    gap, mc = found.get(pair, "difference"), found.get(pair, "McNemar p")
    bounds = "-" if gap.low is None or gap.high is None else f"{points(gap.low)} to {points(gap.high)}"
    return [
        _named(pair, "difference"),
        points(gap.value or 0.0),
        bounds,
        escape(str(found.get(pair, "p"))),
        mc.text or "-",
        escape(str(mc)) if mc.value is not None else "-",
    ]


def _combined(found: Figures) -> str:
    """Ensembles and test-time augmentation, of arms and of several arms together, which are about "ARM + ARM"."""
    names = [name for name in COMBINED if found.about(name)]
    if not names:
        return ""
    rows = [
        [
            _named(about, "ensemble"),
            str(found.get(about, "ensemble").n or "-"),
            *(escape(str(found.get(about, name))) for name in names),
        ]
        for about in found.about("ensemble")
    ]
    note = (
        "An ensemble answers with the mean of its models' probabilities. It is one model, so its interval is Wilson's, "
        "of the test images, and its p is McNemar's mid-p against its first model. Of k models, training and use cost "
        "k times as much. Values of p, and gains with intervals, are adjusted for the rows of the table, by Bonferroni."
    )
    if "gain of views" in names:
        note += (
            " With test-time augmentation a model averages over views of each image; mean and gain are over seeds. "
            "Five views cost five times as much in use."
        )
    return f"{table(('arm', 'models', *(COMBINED[name] for name in names)), rows)}\n\n{note}"


def _obtained(found: Figures) -> str:
    return "\n\n".join(["## How this was obtained", _commands(found), *_sentences(found)])


def _commands(found: Figures) -> str:
    lines = [found.text("search command"), found.text("final command")]
    return "\n".join(["```", *lines, f"mnist-suite gallery {found.name} --to pages", "```"])


def _sentences(found: Figures) -> Iterator[str]:
    yield _protocol(found)
    yield _intervals(found)
    yield " ".join(_spent(found))
    code = found.text("search code")
    if found.text("final code") != code:
        code = f"{code}, the final evaluation {found.text('final code')}"
    yield (
        f"{found.text('date')}, on {escape(found.text('machine'))} for each worker; mnist-suite {escape(code)}; "
        f"{escape(found.text('packages'))}."
    )


def _protocol(found: Figures) -> str:
    trials, arms, earlier = (found.number(n) for n in ("trials", "arms", "earlier readings by other studies"))
    searched = trials > arms
    kinds = [f"{found.number(f'trials {kind}')} {kind}" for kind in ("finished", "pruned", "failed")]
    parts = [
        f"{trials} trials over {arms} arms ({', '.join(kinds)}), ranked by accuracy on "
        f"{found.number('validation images'):,} validation images.",
        f"{found.text('choice')} {found.text('pruning')}"
        if searched
        else "Nothing was searched: each arm has one recipe, that of the experiment file. How these were found is not "
        "part of the costs.",
        f"The {'best recipe' if searched else 'recipe'} of each arm was trained again with {found.number('seeds')} "
        f"fresh seeds. These trainings alone were tested, on {found.number('test images'):,} test images, which this "
        f"study read {times(found.number('readings of test'))}, after the choice"
        + (f"; other studies in the same folder had read them {times(earlier)} before." if earlier else "."),
    ]
    return escape(" ".join(parts))


def _intervals(found: Figures) -> str:
    single = any(found.get(arm, "test").n == 1 for arm in found.arms)
    parts = [
        "The interval of a mean is Student's t over seeds: it tells how much another training would differ, not how "
        "much other test images would.",
        "Where n is 1, no seed changes the result: its interval is Wilson's, of the test images, and the interval of "
        "its difference to another arm is of that arm's seeds alone."
        if single
        else "",
        "Seconds are those of the optimisation of one training, mean over the seeds; other work ran on the machine at "
        "times, so small differences mean nothing. FLOPs are counted, a multiply-add as two.",
    ]
    features = found.get("cost of features", "FLOPs of training")
    if features.value:
        parts.append(
            f"Costs of a head are those of the head alone. Its frozen features were computed once for all trials, in "
            f"{features} FLOPs. The ImageNet training of published weights is not counted."
        )
    return " ".join(part for part in parts if part)


def _spent(found: Figures) -> Iterator[str]:
    for name in ("the search", "the final evaluation"):
        about = f"cost of {name}"
        seconds, elapsed = found.get(about, "seconds of training"), found.get(about, "elapsed")
        yield (
            f'<a id="{anchor(about, "elapsed")}"></a>Cost of {name}, pruned and failed trainings included: '
            f"{duration(elapsed.value or 0.0)} from start to end, {seconds} of training, "
            f"{found.get(about, 'FLOPs of training')} FLOPs."
        )
    about = "cost of pretraining"
    if (spent := found.get(about, "seconds of training")).value:
        flops = found.get(about, "FLOPs of training")
        yield f'<a id="{anchor(about, "elapsed")}"></a>Pretraining before it: {spent} and {flops} FLOPs.'
