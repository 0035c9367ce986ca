"""A short run of `tests.fuzz_dashboard`, with another seed every day; a long one with MNIST_SUITE_SOAK."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EVENTS = os.environ.get("MNIST_SUITE_SOAK", "20")


@pytest.mark.slow
def test_nothing_pressed_typed_or_clicked_ends_the_dashboard() -> None:
    words = ["-m", "tests.fuzz_dashboard", "--events", EVENTS, "--seed", str(int(time.time()) // 86_400)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
