"""Seeds derived from other numbers."""

from __future__ import annotations


def mix(*numbers: int) -> int:
    """A 63-bit seed derived from several integers. Neighbouring inputs give unrelated seeds.

    Source: the finaliser of SplitMix64, Steele et al., 2014, https://doi.org/10.1145/2660193.2660195.
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1
