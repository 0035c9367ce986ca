"""The budgets, as `mnist-suite bench tui` measures them; with room, as a test machine is seldom idle."""

import pytest

from tui.bench import BUDGETS, bench

pytestmark = pytest.mark.slow


def test_budgets() -> None:
    measured = bench(ticks=1000)
    assert set(measured) == set(BUDGETS)
    assert {name: value for name, value in measured.items() if value > 3 * BUDGETS[name]} == {}
