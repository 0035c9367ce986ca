"""The dashboard's benchmark runs on small studies, and memory does not grow. Times are not asserted."""

import pytest

from tui.testing.bench import BUDGETS, bench

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_everything_with_a_budget_is_measured() -> None:
    measured = bench(ticks=150, live=10, records=50, quiet=2)
    assert measured.keys() == BUDGETS.keys()
    assert all(measured[name] > 0 for name in BUDGETS if not name.startswith(("memory", "idle")))
    assert max(measured["idle_running_bytes"], measured["idle_finished_bytes"]) < BUDGETS["idle_running_bytes"]
    assert measured["memory_growth_mib"] < 3 * BUDGETS["memory_growth_mib"]
