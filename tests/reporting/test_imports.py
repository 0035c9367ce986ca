"""The reading side loads no training or search library until it needs one."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "optuna", "sklearn", "scipy", "suite.training", "suite.search", "suite.execution")


@pytest.mark.parametrize(
    ("module", "also"),
    [("suite.ranking.leaderboard", ("matplotlib",)), ("suite.reporting.report", ()), ("tui.app", ("matplotlib",))],
)
def test_what_an_import_loads(module: str, also: tuple[str, ...]) -> None:
    """Imported alone: the leaderboard and the dashboard start fast, and a report needs nothing that trains."""
    program = f"import sys, {module}; print(*(name for name in {HEAVY + also!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
