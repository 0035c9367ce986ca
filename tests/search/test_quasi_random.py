"""Points of a search space: inside it, even, and the same whatever was drawn before."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.search.quasi_random import point
from suite.spec import Choice, LogFloat, Space, Uniform

SPACE: Space = {
    "lr": LogFloat(low=1e-3, high=0.3),
    "momentum": Uniform(low=0.5, high=0.98),
    "batch_size": Choice(values=(32, 64, 128, 256)),
}


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), number=st.integers(0, 10_000))
def test_a_point_lies_in_the_space_and_depends_on_seed_and_number_alone(seed: int, number: int) -> None:
    found = point(SPACE, seed, number)
    assert found == point(SPACE, seed, number)
    assert 1e-3 <= found["lr"] <= 0.3 and 0.5 <= found["momentum"] <= 0.98  # type: ignore[operator]
    assert found["batch_size"] in (32, 64, 128, 256)


def test_points_cover_the_space_evenly() -> None:
    """Of 16 Sobol points each quarter of each range has four."""
    points = [point(SPACE, 5, number) for number in range(16)]
    quarters = [int((p["momentum"] - 0.5) / 0.12) for p in points]  # type: ignore[operator]
    assert sorted(quarters) == sorted([0, 1, 2, 3] * 4)
    assert sorted(p["batch_size"] for p in points) == sorted([32, 64, 128, 256] * 4)  # type: ignore[type-var]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_finite_space_is_enumerated(seed: int) -> None:
    space: Space = {"batch_size": Choice(values=(16, 32, 64)), "nesterov": Choice(values=(True, False))}
    points = [point(space, seed, number) for number in range(6)]
    wanted = [{"batch_size": size, "nesterov": on} for size, on in product((16, 32, 64), (True, False))]
    assert sorted(points, key=str) == sorted(wanted, key=str)
    assert point({}, seed, 3) == {}
