"""Figures as people read them."""

from __future__ import annotations

import pytest

from suite.ranking.formats import size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1010 * 2**20, "1010 MiB"),
        (2**30, "1 GiB"),
        (1.5e13, "13970 GiB"),
    ],
)
def test_sizes_have_no_exponent(value: float, text: str) -> None:
    assert size(value) == text
