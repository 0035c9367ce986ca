"""For tests, benchmarks and documentation only; the dashboard itself imports nothing from here."""
