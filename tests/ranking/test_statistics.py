"""Statistics, against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from suite.ranking import statistics
from suite.ranking.statistics import wilson

values = st.lists(st.floats(-1, 1, allow_nan=False).map(lambda v: round(v, 4)), min_size=2, max_size=12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 1000])
@pytest.mark.parametrize("p", [0.005, 0.1, 0.5, 0.9, 0.975, 0.995])
def test_t_quantile(p: float, df: int) -> None:
    assert statistics.t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-7, abs=1e-9)


@given(values=values)
def test_mean_sd_and_interval(values: list[float]) -> None:
    found = statistics.sample(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    spread = scipy_stats.sem(values)
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, np.mean(values), spread) if spread else (found.mean,) * 2
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_interval_of_shares_is_one_of_shares(values: list[float]) -> None:
    found, plain = statistics.sample_of_shares(values), statistics.sample(values)
    assert found.low is not None and found.high is not None and plain.low is not None and plain.high is not None
    assert (found.mean, found.sd, found.n) == (plain.mean, plain.sd, plain.n)
    assert 0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1
    assert found.low == max(0, plain.low) and found.high == min(1, plain.high)


def test_two_seeds_that_differ_say_little() -> None:
    found = statistics.sample_of_shares([0.4, 0.3333])
    assert found.low == 0.0 and found.high is not None and 0.78 < found.high < 0.80


def test_one_value_has_no_spread() -> None:
    assert statistics.sample([0.5]) == statistics.Sample(0.5, None, 1, None, None)
    with pytest.raises(ValueError, match="no values"):
        statistics.sample([])


@given(hits=st.integers(0, 500), more=st.integers(0, 500))
def test_wilson(hits: int, more: int) -> None:
    n = hits + more
    if n:
        interval = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == (pytest.approx(interval.low, abs=1e-9), pytest.approx(interval.high, abs=1e-9))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [(0.9, 0.3, 0.1705, 0.8090), (1.0, 0.0, 0.6075, 1.0), (0.0, 0.0, -0.2775, 0.2775)],
)
def test_newcombe_as_published(first: float, second: float, low: float, high: float) -> None:
    """9/10 - 3/10, 10/10 - 0/10 and 0/10 - 0/10, by method 10 of Newcombe, 1998, Table II."""
    assert statistics.newcombe(first, second, 10) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=10))
def test_paired_t(pairs: list[tuple[float, float]]) -> None:
    first, second = ([round(v, 3) for v in column] for column in zip(*pairs))
    found = statistics.paired_t(first, second)
    if np.ptp(np.subtract(first, second)) < 1e-9:
        return
    wanted = scipy_stats.ttest_rel(first, second)
    assert found.t == pytest.approx(wanted.statistic, rel=1e-6)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    interval = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low, rel=1e-6), pytest.approx(interval.high, rel=1e-6))


def test_no_variation_gives_no_p_value() -> None:
    assert statistics.paired_t([0.75, 0.5], [0.5, 0.25]).p is None
    assert statistics.paired_t([0.5], [0.25]) == statistics.Paired(0.25, None, None, None, None, 1)
    with pytest.raises(ValueError, match="paired"):
        statistics.paired_t([1.0], [1.0, 2.0])


@given(b=st.integers(0, 300), c=st.integers(0, 300))
def test_mcnemar(b: int, c: int) -> None:
    found = statistics.mcnemar(b, c)
    if b + c == 0:
        assert found.exact == found.mid == 1
        return
    assert found.exact == pytest.approx(scipy_stats.binomtest(b, b + c).pvalue, rel=1e-9)
    k, n = min(b, c), b + c
    mid = 2 * scipy_stats.binom.cdf(k, n, 0.5) - scipy_stats.binom.pmf(k, n, 0.5)
    assert found.mid == pytest.approx(min(1.0, mid), rel=1e-9)
    assert found.mid <= found.exact


def test_mcnemar_as_published() -> None:
    """Fagerland et al., 2013, table 1: 1 and 7 discordant pairs give 0.070 exact and 0.039 mid-p."""
    found = statistics.mcnemar(1, 7)
    assert (round(found.exact, 3), round(found.mid, 3)) == (0.070, 0.039)


def test_holm_by_hand() -> None:
    """Holm's steps: the smallest of three times three, the next times two, never below the one before."""
    assert statistics.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]


def test_per_class_by_hand() -> None:
    rows = statistics.per_class([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert rows[0] == statistics.ClassFigures(4, 1.0, 0.75, pytest.approx(6 / 7))
    assert rows[1].precision == pytest.approx(2 / 3)
    assert rows[2] == statistics.ClassFigures(0, 0.0, 0.0, 0.0)


@given(
    points=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=10),
    reference=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_hypervolume_counts_the_unit_squares_it_covers(
    points: list[tuple[int, int]], reference: tuple[int, int]
) -> None:
    most, floor = reference
    covered = sum(
        any(x >= cost and y < accuracy for cost, accuracy in points) for x in range(most) for y in range(floor, 20)
    )
    assert statistics.hypervolume(points, reference) == covered


def test_knee_and_prices_by_hand() -> None:
    front = [(0.0, 0.0), (1.0, 0.8), (2.0, 0.9), (10.0, 1.0)]
    assert statistics.knee(front) == 1
    assert statistics.knee(front[:2]) is None
    assert statistics.knee([(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]) is None
    found = statistics.prices([(100.0, 0.97), (300.0, 0.98), (800.0, 0.985)])
    assert found == [pytest.approx(20), pytest.approx(100), None]
    assert statistics.prices([]) == []
    assert math.isclose(statistics.hypervolume(front, (10.0, 0.0)), 9 * 0.8 + 8 * 0.1)


counts = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def test_the_interval_of_a_paired_difference_as_published() -> None:
    """Table 4 of Fagerland, Lydersen and Laake, 2014, https://doi.org/10.1002/sim.6148: 1, 1, 7 and 12 of 21."""
    assert statistics.paired_difference(1, 1, 7, 21) == (
        pytest.approx(-0.507, abs=5e-4),
        pytest.approx(-0.026, abs=5e-4),
    )


@given(counts)
def test_the_interval_of_a_paired_difference(found: tuple[int, int, int, int]) -> None:
    both, first, second, neither = found
    n = sum(found)
    low, high = statistics.paired_difference(both, first, second, n)
    assert -1 - 1e-9 <= low <= (first - second) / n <= high <= 1 + 1e-9
    other = statistics.paired_difference(both, second, first, n)
    assert other == (pytest.approx(-high), pytest.approx(-low))
    if both * neither > first * second:  # the answers agree: a narrower one than for other images
        apart = statistics.newcombe((both + first) / n, (both + second) / n, n)
        assert apart[0] - 1e-9 <= low and high <= apart[1] + 1e-9
