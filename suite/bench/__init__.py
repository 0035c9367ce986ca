"""Benchmarks: the suite beside a plain implementation, in one run, as ratios."""
