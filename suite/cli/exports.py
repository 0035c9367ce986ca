"""What `export` prints: what it is doing on stderr, and a table of the formats on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from suite.cli import console
from suite.ranking.formats import duration, percent, size


@contextmanager
def steps(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Context in which the steps of an export are shown: in one line, or in a line each without a terminal."""
    if quiet or not console.err.live:
        yield lambda what: None if quiet else console.err.print(what)
        return
    with console.err.status("reading the trial") as status:
        yield status.update


def print_formats(formats: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of `FormatFigures`, as dictionaries, by name of the format."""
    if not formats:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("format", "size", "val acc", "equal", "largest difference", "b1", "b256", "runtime"):
        table.add_column(title, justify="left" if title in ("format", "runtime") else "right")
    for name, one in formats.items():
        table.add_row(
            name,
            size(one["bytes"]),
            "-" if one["accuracy"] is None else percent(one["accuracy"]),
            percent(one["equal"]),
            f"{one['difference']:.2g} ({one['difference_of']})",
            duration(one["latency_seconds"]),
            duration(one["latency_256_seconds"]),
            one["runtime"],
        )
    console.out.print(table)
    first = next(iter(formats.values()))
    console.out.print(
        f"compared with the trained model on {first['images']} {first['compared_on']}; latencies are medians with "
        f"{first['threads']} threads"
    )
    for name, one in formats.items():
        if one["calibration"]:
            console.out.print(f"{name}: {one['calibration']}")
