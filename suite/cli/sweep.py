"""Commands that run a search, and stop one: sweep, stop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from suite.cli.options import LARGEST, Results, RunOptions, own_name, takes
from suite.errors import InputError, printable

if TYPE_CHECKING:
    from suite.execution.options import Options
    from suite.spec import Caps, Experiment

MOST_TOGETHER = 256  # workers, or members of a stacked model


@dataclass(frozen=True, kw_only=True)
class SweepOptions(RunOptions):
    experiment: Annotated[
        str | None, typer.Argument(help="A built-in experiment, or the path of a file.", show_default="mnist")
    ] = None
    trials: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Number of trials in total, shared equally by the arms.")
    ] = None
    dataset: Annotated[
        str | None,
        typer.Option(help="Another data set than the experiment's: a name from `data list`, folder:PATH or csv:FILE."),
    ] = None
    arms: Annotated[str | None, typer.Option(help="Search only these arms, separated by commas.")] = None
    workers: Annotated[
        str,
        typer.Option(
            help="Number of trials at once, each in a process of its own, spread over the GPUs; 1: in this process; "
            "auto: one a GPU, or as measured on the CPU."
        ),
    ] = "1"
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (all GPUs), cuda:N, several as in cuda:1,cuda:3, or mps.")
    ] = "auto"
    population: Annotated[
        str,
        typer.Option(
            help="Number of trials of one architecture to train as one stacked model; auto: where that is faster."
        ),
    ] = "1"
    engine: Annotated[
        str, typer.Option(help="local, or ray: on the Ray cluster of RAY_ADDRESS, else on one started here.")
    ] = "local"
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL to use instead of SQLite in the study's directory.",
            envvar="MNIST_SUITE_STORAGE",
            show_envvar=True,
        ),
    ] = None
    trial_timeout: Annotated[
        float | None, typer.Option(min=1, max=1e9, help="Seconds after which a trial fails and the next one begins.")
    ] = None
    memory_limit: Annotated[
        float | None,
        typer.Option(min=0.25, max=2**20, help="GiB of main memory beyond which a trial fails. Linux only."),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue an existing study.")] = False
    warm_start: Annotated[
        str | None,
        typer.Option(help="Begin each arm with the best parameters of this study, after the arm's own recipe."),
    ] = None
    max_flops: Annotated[
        float | None, typer.Option(min=1, max=1e18, help="Cap on the forward FLOPs per image, such as 10e6.")
    ] = None
    max_params: Annotated[
        float | None, typer.Option(min=1, max=1e18, help="Cap on the number of parameters, such as 100e3.")
    ] = None
    max_latency: Annotated[
        float | None,
        typer.Option(min=1e-6, max=1e9, help="Cap on the milliseconds for one image, measured on this machine."),
    ] = None
    finalists: Annotated[
        int | None,
        typer.Option(
            min=0, max=100, help="Train the best N recipes of each arm and its default again, with three fresh seeds."
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Seed to use instead of the experiment's own.")
    ] = None

    def changed(self, experiment: Experiment) -> Experiment:
        """The experiment with the changes that these options ask for. Raises InputError."""
        from suite.spec.changes import changed

        return changed(
            experiment,
            dataset=own_name(self.dataset or experiment.dataset),
            arms=None if self.arms is None else [arm.strip() for arm in self.arms.split(",") if arm.strip()],
            settings=self.settings or [],
            caps=self.caps(),
            trials=self.trials,
            limit=self.limit,
            seed=self.seed,
            finalists=self.finalists,
        )

    def caps(self) -> Caps:
        """The caps that are given."""
        from suite.spec import Caps

        return Caps(
            flops=None if self.max_flops is None else int(self.max_flops),
            params=None if self.max_params is None else int(self.max_params),
            latency=None if self.max_latency is None else self.max_latency / 1000,
        )

    def execution(self) -> Options:
        """How to run the study. Raises InputError."""
        from suite.execution.options import Options

        return Options(
            workers=number_or_auto(self.workers, "--workers"),
            population=number_or_auto(self.population, "--population"),
            engine=cast(Literal["local", "ray"], self.engine),
            device=self.device,
            storage=self.storage,
            resume=self.resume,
            skip_broken=self.skip_broken,
            trial_seconds=self.trial_timeout,
            trial_memory=None if self.memory_limit is None else round(self.memory_limit * 2**30),
        )


def number_or_auto(text: str, option: str) -> int:
    """A number of trials, or 0 for "auto". Raises InputError."""
    if text == "auto":
        return 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MOST_TOGETHER:
        raise InputError(f"{option} takes a number from 1 to {MOST_TOGETHER}, or auto; not '{text}'.")
    return int(text)


@takes(SweepOptions)
def sweep(options: SweepOptions) -> None:
    """Search every arm of an experiment for a fixed number of trials. Ctrl-C stops cleanly; --resume continues.

    At its end it says what the search found over the default recipe of each arm, how sure that is, and what it cost.

    \b
    Examples: mnist-suite sweep --trials 50
              mnist-suite sweep fashion --trials 20 --workers 2
              mnist-suite sweep photos --dataset folder:pictures --trials 30
              mnist-suite sweep ./my_experiment.py --resume
              mnist-suite sweep --study fashion --resume
              mnist-suite sweep --study fashion --resume --finalists 3
              mnist-suite sweep --trials 50 --max-flops 10e6
              mnist-suite sweep fashion --trials 50 --warm-start mnist
              mnist-suite sweep --trials 50 --population auto
              mnist-suite sweep --trials 50 --workers auto --device cuda:1,cuda:3
              RAY_ADDRESS=10.0.0.1:6379 mnist-suite sweep --trials 500 --engine ray --workers auto
    """
    from suite.store.files import results_dir

    root = results_dir(options.results)
    run_search(options, options.changed(_declared(options, root)), root)


def run_search(options: SweepOptions, experiment: Experiment, root: Path) -> None:
    """Search an experiment as the options say, and print what was found. `root` is the results directory."""
    from suite.cli import console, plans
    from suite.cli.run import announce_pictures, run_finalists, run_study
    from suite.ranking import gains
    from suite.ranking.leaderboard import as_dict, default_columns
    from suite.store.files import check_name, dump_json
    from suite.store.study import StudyDir

    if options.engine not in ("local", "ray"):
        raise InputError(f"There is no engine '{options.engine}'; this version has: local, ray.")
    if options.warm_start is not None:
        from suite.execution.warm_start import warm_started

        experiment = warm_started(experiment, root, options.warm_start)
    name = check_name(options.study or experiment.name, "Study")
    announce_pictures(experiment.dataset, quiet=options.quiet or options.dry_run)
    if without := [arm for arm, trials in experiment.quota().items() if not trials]:
        console.err.print(
            f"warning: {experiment.trials} trials are fewer than the {len(experiment.arms)} arms: none for "
            f"{', '.join(without)}. Take --trials {len(experiment.arms)} or more, or choose with --arms.",
            soft_wrap=True,
        )
    execution = options.execution()
    if options.dry_run:
        from suite.execution.plan import check

        check(experiment, root, execution, fetch=False)
        print(dump_json(experiment) if options.as_json else plans.as_text(experiment, name))
        return
    status = run_study(experiment, root, name, execution, quiet=options.quiet)
    if experiment.finalists:
        run_finalists(root, name, replace(execution, workers=execution.workers or status.workers), quiet=options.quiet)
    study = StudyDir(root, name)
    found = gains.study_gains(study, study.states())
    rows = console.gather(root, name, sort="accuracy")
    if options.as_json:
        print(dump_json({"status": status.model_dump(), "rows": [as_dict(row) for row in rows], "found": found}))
    else:
        console.print_leaderboard(rows, default_columns(rows), sort="accuracy", top=15, title=f"Study {name}")
        console.out.print(f"\n{gains.as_text(found, name)}")


def _declared(options: SweepOptions, root: Path) -> Experiment:
    """The experiment before changes: the one named, or that of a study to resume, which has its changes already."""
    from suite.spec.load import load_experiment
    from suite.store.study import open_study

    if options.experiment is None and options.resume and options.study:
        begun = open_study(root, options.study).study()
        if begun is not None:
            return begun.experiment
    return load_experiment(options.experiment or "mnist")


def stop(
    study: Annotated[str, typer.Argument(help="STUDY, or STUDY/TRIAL for one trial.")],
    results: Results = None,
    reason: Annotated[str, typer.Option(help="A note on why, kept with the request.")] = "asked by `mnist-suite stop`",
) -> None:
    """Ask a running study to stop cleanly, or one of its trials to end. Works from any host that sees the results.

    A trial ends at its next evaluation and counts as pruned; the search goes on.

    \b
    Examples:
      mnist-suite stop mnist
      mnist-suite stop mnist/12
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.liveness import has_died
    from suite.store.study import finalists_of, find_trial, open_study, split_reference

    study, trial = split_reference(study)
    directory = open_study(results_dir(results), study)
    if not directory.live() and finalists_of(directory).live():  # the search is over
        directory = finalists_of(directory)
    status = directory.status()
    if status is None or status.state != "running":
        console.out.print(f"Study '{study}' is not running ({status.state if status else 'never started'}).")
        return
    if has_died(status):
        console.out.print(
            f"Study '{study}' is not running: its controller, pid {status.pid}, has died. Continue with --resume."
        )
        return
    if trial is not None:
        state = find_trial(directory, trial)
        if state.record is not None:
            console.out.print(f"Trial {state.id} is over: {state.state}.")
            return
        directory.trial(state.id).request_stop(printable(reason))
        console.out.print(f"Asked trial {state.id} to end at its next evaluation; it counts as pruned.")
        return
    directory.request_stop(printable(reason))
    stale = ""
    if not directory.live():
        stale = " It has not reported for a while and may be dead; if so, --resume continues after a wait."
    console.out.print(f"Asked pid {status.pid} on {status.host} to stop; continue later with --resume.{stale}")
