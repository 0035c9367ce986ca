"""Commands that read results and train nothing: status, leaderboard, report, convert, tui."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.options import LARGEST, Json, Quiet, Results, path_option, takes
from suite.errors import InputError

if TYPE_CHECKING:
    from suite.ranking.leaderboard import Row


def status(
    study: Annotated[str | None, typer.Argument(help="One study; by default all.")] = None,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Show the state of the studies.

    \b
    Example: mnist-suite status
    """
    from suite.cli import console
    from suite.store.files import dump_json, results_dir
    from suite.store.liveness import looked_at
    from suite.store.study import finalists_of, open_study, studies

    root = results_dir(results)
    found: list[dict[str, Any]] = []
    lost: list[str] = []
    chosen = [open_study(root, study)] if study else studies(root)
    for directory, pulse in zip(chosen, looked_at([one.status for one in chosen])):
        last = directory.status()
        if last is None:
            found.append({"study": directory.name, "state": "never started"})
            continue
        state = {"silent": "stale", "died": "died"}.get(pulse.life, last.state)
        found.append({**last.model_dump(), "state": state})
        lost.append(console.lost_controller(last, pulse.life, results))
        if after := finalists_of(directory).live():  # the search is over
            found[-1]["finalists"] = after.model_dump()
    if as_json:
        print(dump_json(found))
        return
    if not found:
        console.out.print(f"There are no studies in {root}. Start one: mnist-suite sweep --trials 50")
    for one in found:
        console.out.print(_status_line(one))
    for sentence in filter(None, lost):
        console.out.print(sentence)


def _status_line(one: dict[str, Any]) -> str:
    from suite.cli import console

    done = sum(one.get(key, 0) for key in ("finished", "pruned", "failed"))
    best = f", best {100 * one['best_accuracy']:.2f}%" if one.get("best_accuracy") is not None else ""
    known = one["state"] == "running" and one.get("eta_seconds")
    eta = f", about {console.duration(one['eta_seconds'])} left" if known else ""
    paused = f", {one['paused']} paused" if one.get("paused") else ""
    after = one.get("finalists")
    runs = f", finalists running: {after['finished'] + after['failed']}/{after['planned']}" if after else ""
    return f"{one['study']}: {one['state']}, {done}/{one.get('planned', '?')} trials{paused}{best}{eta}{runs}"


@dataclass(frozen=True, kw_only=True)
class LeaderboardOptions:
    study: Annotated[str | None, typer.Argument(help="One study; by default all.")] = None
    sort: Annotated[str, typer.Option(help="A column: accuracy, flops, params, seconds, energy, ...")] = "accuracy"
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas.")] = None
    top: Annotated[int | None, typer.Option(min=1, max=LARGEST, help="Number of rows to show of each data set.")] = None
    as_json: Json = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False
    watch: Annotated[bool, typer.Option("--watch", help="Update the table as results arrive; Ctrl-C ends.")] = False
    with_fronts: Annotated[
        bool,
        typer.Option("--pareto", help="Add the Pareto front of every cost: knee, hypervolume, price of 0.1 point."),
    ] = False
    results: Results = None

    def keys(self, rows: Iterable[Row]) -> list[str]:
        """The columns to show of these rows."""
        from suite.ranking.leaderboard import default_columns

        if self.columns:
            return [key.strip() for key in self.columns.split(",")]
        first, *rest = default_columns(rows)
        return [first, *rest] if self.study else [first, "study", *rest]


@takes(LeaderboardOptions)
def leaderboard(options: LeaderboardOptions) -> None:
    """Show accuracy and compute cost of every trial, read from the results directory.

    \b
    Examples: mnist-suite leaderboard mnist
              mnist-suite leaderboard mnist --sort flops --markdown
              mnist-suite leaderboard --json > rows.json
              mnist-suite leaderboard mnist --pareto --json
    """
    from suite.cli import console
    from suite.ranking import leaderboard as board
    from suite.store.files import dump_json, results_dir
    from suite.store.study import open_study, studies

    root = results_dir(options.results)
    study, sort, top = options.study, options.sort, options.top
    if study is None and not studies(root):
        open_study(root, None)  # raises an error that says so
    for key in [*options.keys(()), sort]:
        board.column(key)  # raises an error if there is no such column
    if sum((options.as_json, options.as_csv, options.as_markdown, options.watch)) > 1:
        raise InputError("Take one of --json, --csv, --markdown and --watch.")
    if options.watch:
        _watch(root, options)
        return
    rows = console.gather(root, study, sort=sort)
    if options.with_fronts and (options.as_csv or options.as_markdown):
        raise InputError("--pareto goes with the table and with --json.")
    if options.with_fronts:
        _print_fronts(root, options, rows)
    elif options.as_json:
        print(dump_json([board.as_dict(row) for row in board.first_of_each(rows, top)]))
    elif options.as_csv:
        print(board.as_csv(board.first_of_each(rows, top)), end="")
    elif options.as_markdown:
        print(board.as_markdown(board.first_of_each(rows, top), options.keys(rows)), end="")
    else:
        console.print_leaderboard(
            rows, options.keys(rows), sort=sort, top=top, title=f"Study {study}" if study else "All studies"
        )


def _print_fronts(root: Path, options: LeaderboardOptions, rows: list[Row]) -> None:
    from suite.cli import console
    from suite.ranking import pareto
    from suite.ranking.leaderboard import as_dict, first_of_each
    from suite.ranking.study_costs import study_costs
    from suite.store.files import dump_json
    from suite.store.study import open_study

    found = pareto.fronts(rows)
    if not options.as_json:
        console.out.print("\n\n".join(pareto.as_text(one) for one in found.values()))
        return
    costs = study_costs(root, open_study(root, options.study)) if options.study else None
    print(
        dump_json({"rows": [as_dict(row) for row in first_of_each(rows, options.top)], "fronts": found, "costs": costs})
    )


def _watch(root: Path, options: LeaderboardOptions) -> None:
    """Show the table until interrupted: redrawn every second, or without a terminal printed whenever it changes."""
    import time

    from rich.live import Live

    from suite.cli import console
    from suite.ranking.leaderboard import by_validation_set
    from suite.store.liveness import Pulse

    pulses: dict[str, Pulse] = {}

    def table() -> console.Table:
        rows = console.gather(root, options.study, sort=options.sort, pulses=pulses)
        lost = [
            console.lost_controller(pulse.status, pulse.life, options.results)
            for pulse in pulses.values()
            if pulse.status is not None
        ]
        title = " ".join(filter(None, [options.study or "All studies", *lost]))
        groups = len(by_validation_set(rows))
        room = max(5, (console.out.height - 4) // max(1, groups) - (groups > 1)) if console.out.live else None
        return console.table(rows, options.keys(rows), top=options.top or room, title=title)

    if not console.out.live:
        shown = None
        while True:
            if (now := table()) != shown:
                shown = now
                console.out.print(now, crop=False)
                console.out.file.flush()
            time.sleep(1.0)
    with Live(console=console.out, auto_refresh=False, screen=True) as live:
        while True:
            live.update(table(), refresh=True)
            time.sleep(1.0)


def report(
    study: Annotated[str | None, typer.Argument(help="By default the newest one.")] = None,
    to: Annotated[
        Path,
        path_option("--to", help="A .html file, or .md with PNGs beside it."),
    ] = Path("report.html"),
    results: Results = None,
    quiet: Quiet = False,
) -> None:
    """Write a page about a study: question, protocol, figures with their uncertainty, plots, costs, provenance.

    \b
    Example: mnist-suite report mnist --to report.html
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.study import open_study

    root = results_dir(results)
    directory = open_study(root, study)
    with console.step_progress("pictures", quiet) as on_picture:
        from suite.reporting.report import write  # within the progress, since it takes a second to load

        write(root, directory, to, on_picture=on_picture)
    console.out.print(f"The report on study {directory.name} is in {to}")


def convert(
    study: str,
    to: Annotated[Path, path_option("--to", help="Folder to write into.")],
    parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet instead of CSV.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files instead of CSV.")] = False,
    results: Results = None,
) -> None:
    """Write a study for other tools: trials and events as CSV or Parquet, or TensorBoard's event files.

    \b
    Examples: mnist-suite convert mnist --to tables
              mnist-suite convert mnist --to tables --parquet
              mnist-suite convert mnist --to runs --tensorboard
    """
    from suite.cli import console
    from suite.reporting import tables
    from suite.store.files import results_dir
    from suite.store.study import open_study

    if parquet and tensorboard:
        raise InputError("Take one of --parquet and --tensorboard.")
    directory = open_study(results_dir(results), study)
    if tensorboard:
        trials, events = tables.tensorboard(directory, to)
    else:
        trials, events = tables.tables(directory, to, parquet=parquet)
    console.out.print(f"{trials} trials with {events} events of study {study} are in {to}")


def tui(
    results: Results = None,
    readonly: Annotated[
        bool | None,
        typer.Option("--readonly/--read-write", help="Change nothing; the default with --web.", show_default=False),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve it to a browser on this machine.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of --web; 0: any free one.", show_default="8000"),
    ] = None,
    ascii: Annotated[
        bool | None,
        typer.Option(
            "--ascii/--no-ascii",
            help="Draw in ASCII; the default on the Linux console and where the locale is not UTF-8.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Open the dashboard: live leaderboards, plots, launching and stopping. Closing it stops no training.

    \b
    Examples: mnist-suite tui
              mnist-suite tui --results /shared/results --readonly
              mnist-suite tui --web --port 8080
    """
    from suite.store.files import results_dir

    if web:
        raise typer.Exit(_serve(results_dir(results), readonly is not False, port))
    if port is not None:
        raise InputError("--port is the port of --web: give both.")
    _need_terminal()
    from tui.app import run

    raise typer.Exit(run(results_dir(results), bool(readonly), ascii))


def _serve(results: Path, readonly: bool, port: int | None) -> int:
    try:
        from tui.web import PORT, serve
    except ModuleNotFoundError as error:
        if error.name not in ("textual_serve", "aiohttp"):
            raise
        raise InputError("`tui --web` needs textual-serve: pip install 'mnist-suite[web]'.") from None
    return serve(results, readonly, PORT if port is None else port)


def _need_terminal() -> None:
    """Raises InputError where the dashboard cannot be drawn or gets no keys. Asked before Textual is imported."""
    if os.environ.get("TEXTUAL_DRIVER"):  # as in a process that serves a browser
        return
    names = ("standard input", "standard output", "standard error")
    closed = [name for descriptor, name in enumerate(names) if not os.isatty(descriptor)]
    kind = os.environ.get("TERM", "")
    if closed:
        why = f"{closed[0]} is none"
    elif kind.lower() in ("dumb", "unknown"):
        why = f"TERM={kind} means one without control sequences"
    else:
        return
    raise InputError(
        f"The dashboard needs a terminal, and {why}. Take `mnist-suite leaderboard --watch`, or `mnist-suite tui "
        "--web` for a browser on this machine."
    )
