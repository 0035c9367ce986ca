"""The spinning of OpenMP threads is bounded before torch is loaded, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from suite.hardware.openmp import CHOICES, SPINS, bound_spinning, described


@pytest.mark.parametrize(("name", "value"), [(None, ""), *((name, "7") for name in CHOICES), ("OMP_WAIT_POLICY", "")])
def test_what_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch, name: str | None, value: str) -> None:
    for choice in CHOICES:
        monkeypatch.delenv(choice, raising=False)
    if name is not None:
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    bound_spinning()
    assert dict(os.environ) == before | ({"GOMP_SPINCOUNT": str(SPINS)} if name is None else {})
    assert described() == (f"GOMP_SPINCOUNT={SPINS}" if name is None else f"{name}={value}")


AS_TORCH_IS_LOADED = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
sys.argv = ["mnist-suite", "doctor"]
from suite.cli.main import main
main()
"""


def test_the_command_line_bounds_it_before_torch_is_loaded() -> None:
    """libgomp reads its environment once, as it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    command = [sys.executable, "-c", AS_TORCH_IS_LOADED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{SPINS}\n", done.stderr
