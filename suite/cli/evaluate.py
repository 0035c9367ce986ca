"""Commands that train again what a search found: evaluate, rerun."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.options import LARGEST, Device, Json, Quiet, Results, command_line, takes
from suite.cli.signals import exit_if_stopped, stopping
from suite.errors import InputError

if TYPE_CHECKING:
    from suite.spec import Status


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    study: Annotated[str, typer.Argument()]
    final: Annotated[
        bool, typer.Option("--final", help="Confirm that the search is over, so that the test images may be read.")
    ] = False
    top: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="Finalists of each arm, chosen by validation accuracy.")
    ] = 3
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each finalist, each with a new seed.")] = 5
    workers: Annotated[int, typer.Option(min=1, max=256, help="Number of trainings at once.")] = 1
    device: Device = "auto"
    results: Results = None
    as_json: Json = False
    quiet: Quiet = False


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> None:
    """Measure test accuracy with its uncertainty: train finalists with new seeds, then read the test images once.

    \b
    Example: mnist-suite evaluate mnist --final --top 3 --seeds 5
    """
    from suite.cli import console
    from suite.cli.run import warn_of_failures
    from suite.evaluation import final as final_evaluation
    from suite.execution.stop import Stop
    from suite.store.files import dump_json, results_dir
    from suite.store.study import open_study

    root = results_dir(options.results)
    directory = open_study(root, options.study)
    if not options.final:
        raise InputError(final_evaluation.APART.format(study=options.study))
    stop = Stop()
    found: Any = None
    with stopping(stop):
        plan = final_evaluation.plan(
            root,
            directory,
            top=options.top,
            seeds=options.seeds,
            place=options.device,
            workers=options.workers,
            command=command_line(),
        )
        with console.sweep_progress(directory.path, quiet=options.quiet) as progress:
            for status in final_evaluation.train(plan, stop=stop, workers=options.workers):
                progress.update(status)
        if not stop.reason:
            with console.step_progress("models tested", options.quiet) as on_model:
                found = final_evaluation.judge(plan, on_model=on_model)
    exit_if_stopped(stop, "The same command continues from here.")
    warn_of_failures(final_evaluation.trained(plan))
    print(dump_json(found) if options.as_json else final_evaluation.as_text(found))


def rerun(
    trial: Annotated[str, typer.Argument(help="STUDY/TRIAL; a study alone means its best trial.")],
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a trial again and compare accuracy, curve and weights; exit code 1 if they differ.

    \b
    Example: mnist-suite rerun mnist/0007
    """
    from suite.cli import console
    from suite.evaluation import rerun as evaluation_rerun
    from suite.execution.stop import Stop
    from suite.store.files import dump_json, results_dir

    root, stop, answer = results_dir(results), Stop(), {}
    with stopping(stop), console.sweep_progress(root, quiet=quiet) as progress:

        def on_status(place: Path, status: Status) -> None:
            progress.results = place
            progress.update(status)

        try:
            answer = evaluation_rerun.rerun(root, trial, stop=stop, on_status=on_status)
        except InputError:
            if stop.reason is None:
                raise
    exit_if_stopped(stop, "A repeated training cannot be continued; start it again.")
    if as_json:
        print(dump_json(answer))
    else:
        _print_comparison(answer)
    if not answer["identical"]:
        raise typer.Exit(1)


def _print_comparison(answer: dict[str, Any]) -> None:
    from suite.cli import console

    verdict = "identical (state, accuracy, loss, curve, weights)" if answer["identical"] else "NOT identical"
    console.out.print(f"{answer['trial']}: {verdict}")
    for kind, facts in (("differs", answer["differs"]), ("changed since", answer["surroundings"])):
        for key, (before, now) in facts.items():
            console.out.print(f"  {kind}: {key} was {before}, is {now}")
