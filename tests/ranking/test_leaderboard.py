"""Ranking and intervals."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.errors import InputError
from suite.ranking.leaderboard import COLUMNS, COSTS, Row, as_csv, as_markdown, pareto, rank, text
from suite.ranking.statistics import wilson

STATES = ["finished", "pruned", "failed", "running", "stale", "waiting", "stopped"]


def row(number: int, accuracy: float | None = 0.9, state: str = "finished", **facts: object) -> Row:
    base = Row("s", f"{number:04d}", number, "a", "cnn", "scratch", state, accuracy)
    return base._replace(**facts)  # type: ignore[arg-type]


rows = st.lists(
    st.builds(
        row,
        st.integers(0, 9999),
        st.none() | st.floats(0, 1),
        st.sampled_from(STATES),
        flops=st.none() | st.integers(1, 10),
        seconds=st.none() | st.floats(0, 100) | st.just(math.nan),
    ),
    max_size=40,
    unique_by=lambda r: r.number,
)


def test_wilson_agrees_with_published_values() -> None:
    """8 of 10 and 0 of 20, as in Newcombe, 1998, and by the formula's limits."""
    low, high = wilson(0.8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    low, high = wilson(0.0, 20)
    assert (low, round(high, 3)) == (0.0, 0.161)
    assert wilson(0.5, 0) == (0.0, 1.0)


@given(n=st.integers(1, 60_000), share=st.floats(0, 1))
def test_wilson_holds_the_estimate_and_narrows(n: int, share: float) -> None:
    low, high = wilson(share, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    wider = wilson(share, max(1, n // 4))
    assert high - low <= wider[1] - wider[0] + 1e-12


@given(rows=rows, sort=st.sampled_from(list(COLUMNS)))
def test_rank_keeps_all_rows_with_the_finished_first(rows: list[Row], sort: str) -> None:
    ranked = rank(rows, sort=sort)
    assert sorted(r.number for r in ranked) == sorted(r.number for r in rows)
    states = [r.state == "finished" for r in ranked]
    assert states == sorted(states, reverse=True)
    assert [r.rank for r in ranked if r.rank] == list(range(1, sum(states) + 1))
    assert rank(list(reversed(rows)), sort=sort) == ranked


@given(rows=rows)
def test_no_row_beats_one_on_the_front(rows: list[Row]) -> None:
    finished = [r for r in rows if r.state == "finished" and r.accuracy is not None and r.flops is not None]
    front = pareto(rows, "flops")
    for r in front:
        assert not any(
            o.accuracy >= r.accuracy and o.flops <= r.flops and (o.accuracy > r.accuracy or o.flops < r.flops)  # type: ignore[operator]
            for o in finished
        )
    for r in finished:
        assert r in front or any(o.accuracy >= r.accuracy and o.flops <= r.flops for o in front)  # type: ignore[operator]


def test_best_accuracy_first_and_cheapest_on_a_tie() -> None:
    ranked = rank([row(1, 0.9, flops=5), row(2, 0.95, flops=9), row(3, 0.9, flops=2), row(4, 0.99, "pruned")])
    assert [r.number for r in ranked] == [2, 3, 1, 4]
    assert [r.rank for r in ranked] == [1, 2, 3, None]


def test_csv_keeps_every_row_and_its_parameters() -> None:
    table = list(csv.DictReader(io.StringIO(as_csv([row(1, tuned={"lr": 0.1}), row(2, tuned={"momentum": 0.5})]))))
    assert [r["number"] for r in table] == ["1", "2"]
    assert (table[0]["lr"], table[1]["lr"], table[1]["momentum"]) == ("0.1", "", "0.5")


def test_markdown_has_one_line_a_row() -> None:
    lines = as_markdown([row(1), row(2, None, "failed", reason="a|b")], ["number", "accuracy", "reason"]).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| 0001 | 90.00% | - |"
    assert lines[3] == "| 0002 | - | a\\|b |"


def test_unknown_columns_are_named() -> None:
    with pytest.raises(InputError, match="accuracy"):
        rank([row(1)], sort="nonsense")
    with pytest.raises(InputError, match="not a cost"):
        rank([row(1)], cost="accuracy")


@pytest.mark.parametrize("key", COSTS)
def test_every_cost_has_a_readable_form(key: str) -> None:
    assert text(row(1, **{key: 123456}), key) not in ("-", "123456")
    assert text(row(1), key) == "-"
