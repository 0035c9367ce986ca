"""Accuracies are compared within one validation set: the data and the limit decide it, the training labels do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from suite.cli.console import summary, table
from suite.data.splits import split_indices
from suite.ranking.leaderboard import Row, as_csv, as_dict, as_markdown, first_of_each, rank, row
from suite.spec import Cost, Record, Trial
from suite.store.trial import TrialState

MakeTrial = Callable[..., Trial]


def ranked_row(trial: Trial, accuracy: float, flops: int) -> Row:
    """The row of a finished trial."""
    cost = Cost(
        parameters=1,
        trainable=1,
        forward_flops=flops,
        training_flops=1,
        wall_seconds=1.0,
        train_seconds=1.0,
        setup_seconds=0.0,
        images_per_second=1.0,
        peak_memory_bytes=1,
        memory_source="resident set",
        energy_joules=None,
        energy_source="unavailable",
    )
    record = Record(trial=trial.id, arm=trial.arm, state="finished", attempt="a", accuracy=accuracy, cost=cost)
    state = TrialState(trial.id, trial)
    state.settle(record)
    return row(trial.study, state)


def stars(*rows: Row) -> set[str]:
    """Arms with a trial on the Pareto front."""
    return {r.arm for r in rank(rows) if r.pareto}


def test_an_arm_with_fewer_labels_is_compared_with_the_others(make_trial: MakeTrial) -> None:
    """A worse and dearer trial gets no star because it was trained on a tenth of the labels."""
    whole = ranked_row(make_trial(arm="whole"), 0.99, 1000)
    tenth = ranked_row(make_trial(arm="tenth", number=4, fraction=0.1, split_hash="other"), 0.9, 2000)
    assert whole.validation == tenth.validation
    assert stars(whole, tenth) == {"whole"}


def test_other_validation_images_are_another_group(make_trial: MakeTrial) -> None:
    """Neither another limit nor other data is beaten by a figure on other images."""
    whole = ranked_row(make_trial(arm="whole"), 0.99, 1000)
    quick = ranked_row(make_trial(arm="quick", number=4, limit=300), 0.9, 2000)
    other = ranked_row(make_trial(arm="other", number=5, dataset="fashion-mnist", data_hash="e"), 0.8, 3000)
    assert stars(whole, quick, other) == {"whole", "quick", "other"}


def test_each_validation_set_has_a_ranking_of_its_own(make_trial: MakeTrial) -> None:
    """A good figure on an easy data set is not ranked above one on a hard data set, in whatever form."""
    easy = [ranked_row(make_trial(arm=f"easy{n}", number=n), 0.99 - n / 100, 10 + n) for n in range(3)]
    changes = {"dataset": "fashion-mnist", "data_hash": "e" * 64, "limit": 300}
    hard = [ranked_row(make_trial(arm=f"hard{n}", number=n, **changes), 0.8 - n / 100, 10 + n) for n in range(3)]
    rows = rank([easy[1], hard[0], easy[0], hard[2], easy[2], hard[1]])
    assert [(r.dataset, r.arm, r.rank, r.pareto) for r in rows] == [
        (name, f"{kind}{n}", n + 1, n == 0)
        for name, kind in (("fashion-mnist", "hard"), ("mnist", "easy"))
        for n in range(3)
    ]
    assert [r.arm for r in first_of_each(rows, 2)] == ["hard0", "hard1", "easy0", "easy1"]
    one = as_dict(rows[0])
    assert (one["dataset"], one["data_hash"], one["limit"], one["rank"]) == ("fashion-mnist", "e" * 64, 300, 1)
    first, _, _, last = as_csv([rows[0], rows[3], rows[4]]).splitlines()
    assert {"dataset", "data_hash", "limit"} <= set(first.split(",")) and ",mnist," in last
    names = ["fashion-mnist (eeeeeeee), limit 300", "mnist (d)"]
    assert [line.removeprefix("Data set ") for line in as_markdown(rows).splitlines() if "Data set" in line] == names
    shown = [text for text, _ in table(rows, ["rank", "arm"], top=2).lines]
    assert [line.strip() for line in shown[1:]] == [
        f"data set {names[0]}",
        "*1  hard0",
        "2  hard1",
        f"data set {names[1]}",
        "*1  easy0",
        "2  easy1",
    ]
    assert "on the same data set" in summary(rows, "flops") and "data set" not in summary(easy, "flops")


@given(
    labels=st.lists(st.integers(0, 3), min_size=8, max_size=80),
    fraction=st.floats(0.01, 1),
    seed=st.integers(0, 9),
    limit=st.none() | st.integers(1, 90),
)
def test_the_validation_split_depends_on_labels_and_limit_alone(
    labels: list[int], fraction: float, seed: int, limit: int | None
) -> None:
    """What `validation_set` relies on."""
    _, wanted = split_indices(np.array(labels), limit=limit)
    _, found = split_indices(np.array(labels), fraction=fraction, seed=seed, limit=limit)
    assert (found == wanted).all()
