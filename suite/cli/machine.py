"""Commands about this machine and the files on it: doctor, bench."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.options import Json, Results
from suite.errors import InputError

if TYPE_CHECKING:
    from suite.store.study import StudyDir


def doctor(
    study: Annotated[str | None, typer.Argument(help="Check the files of this study instead.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="With STUDY: set damaged files aside.")] = False,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Show devices, precision, data, weights, disk and versions of this machine, or check the files of a study.

    \b
    Examples: mnist-suite doctor
              mnist-suite doctor mnist --repair
    """
    from suite.cli import console
    from suite.store.files import dump_json, results_dir
    from suite.store.study import StudyDir

    if study is not None:
        _check_study(StudyDir(results_dir(results), study), repair, as_json)
        return
    if repair:
        raise InputError("--repair needs a study: mnist-suite doctor STUDY --repair.")
    from suite.cli.doctor import examine

    report = examine(results_dir(results))
    if as_json:
        print(dump_json(report))
        return
    for part, facts in report.items():
        console.out.print(part)
        for key, value in facts.items():
            console.out.print(f"  {key:44} {value}")


def _check_study(directory: StudyDir, repair: bool, as_json: bool) -> None:
    """Print what is damaged in a study, repaired or not; exit code 1 if any damage remains."""
    from dataclasses import asdict

    from suite.cli import console
    from suite.store import repair as store_repair
    from suite.store.files import dump_json
    from suite.store.study import final_of, finalists_of, open_study

    if not directory.path.is_dir():
        open_study(directory.path.parent, directory.name)  # raises an error that lists the studies there are
    found = store_repair.examine(directory)
    left = found
    if repair and found:
        with contextlib.ExitStack() as locks:
            locks.enter_context(directory.lock())
            for below in (finalists_of(directory), final_of(directory)):
                if below.path.is_dir():
                    locks.enter_context(below.lock())
            left = store_repair.mend(directory, store_repair.examine(directory))
    if as_json:
        print(dump_json([{**asdict(fault), "mended": repair and fault not in left} for fault in found]))
    else:
        for fault in found:
            done = "done" if repair and fault not in left else "to do"
            console.out.print(f"{fault.place} {fault.what} ({done}: {fault.remedy})")
        summary = f"{len(found)} findings, {len(found) - len(left)} repaired" if found else "no damage found"
        console.out.print(f"{directory.name}: {len(directory.trials())} trials, {summary}.")
    if left:
        raise typer.Exit(1)


def bench(
    name: Annotated[
        str | None,
        typer.Argument(help="One benchmark (a wrong name lists them); by default all, which takes about 15 minutes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the speed of this machine: the suite beside a plain implementation, in one run, as ratios.

    \b
    Examples: mnist-suite bench train
              mnist-suite bench --json > bench.json
    """
    from suite.bench import registry
    from suite.cli import console
    from suite.store.files import dump_json

    if as_json:
        names = ("name", "value", "unit", "how")
        figures = [dict(zip(names, figure, strict=True)) for figure in registry.bench(name)]
        print(dump_json({"machine": registry.machine(), "figures": figures}))
        return
    for figure, value, unit, how in registry.bench(name):
        console.out.print(f"{figure:26} {value:12.4g} {unit:10} {how}")
    console.out.print("  ".join(f"{key}: {value}" for key, value in registry.machine().items()))
