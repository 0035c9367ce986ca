"""The command line: parses, composes, prints. Everything heavy is imported inside a command."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from suite.errors import InputError, WorkError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from suite.execution.controller import Stop
    from suite.execution.plan import Options
    from suite.spec import Arm, Experiment
    from suite.store.study import StudyDir

app = typer.Typer(
    name="mnist-suite",
    help="Pretrain, fine-tune, search and compare small vision models, honestly.",
    epilog="Start with: mnist-suite sweep --trials 50   then: mnist-suite leaderboard",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer(no_args_is_help=True, help="Data sets: list, fetch, verify, import, sample.")

app.add_typer(data_app, name="data")

Results = Annotated[
    Path | None,
    typer.Option("--results", help="Results directory.", envvar="MNIST_SUITE_RESULTS", show_default="./results"),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]

Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="For initialisation, order and augmentation.")]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value: lr=0.05, epochs=3, augment.shift=2, strategy.head.hidden=512."),
]

Limit = Annotated[int | None, typer.Option(min=20, help="Use only so many images of each split, for a quick try.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")]

StudyName = Annotated[str | None, typer.Option("--study", help="Name of the study below the results directory.")]


def main() -> NoReturn:
    """The console script: turns errors into one paragraph and an exit code."""
    _have_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except InputError as error:
        _complain(str(error), 2)
    except WorkError as error:
        _complain(str(error), 1)
    except KeyboardInterrupt:
        _complain("Interrupted.", 130)
    except BrokenPipeError:  # the reader of our output has gone: not our trouble
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        no_path = error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST)
        _complain(f"{error.strerror or error}{where}. Nothing already written was lost.", 2 if no_path else 1)
    except RecursionError:
        _complain("A value is nested too deeply.", 2)
    except (MemoryError, ImportError) as error:  # libraries that find no room to be loaded raise either
        _complain(f"{error or 'out of memory'}: too little memory, or an incomplete installation.", 1)
    sys.exit(0)


def _command() -> str:
    """The command line for the record: a path need not be text, but JSON takes nothing else."""
    return printable(" ".join(["mnist-suite", *sys.argv[1:]]))


def _complain(message: str, code: int) -> NoReturn:
    """One paragraph on stderr, and the end."""
    text = printable(" ".join(message.split()))
    with contextlib.suppress(OSError):  # the terminal may have gone
        print(f"mnist-suite: {text}", file=sys.stderr)
    sys.exit(code)


def _have_streams() -> None:
    """Started without one of the three (as by `2>&-`), the next file that is opened would take its number, and
    whatever is printed would end up in that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


# --- data -------------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The data sets, and which are here.

    \b
    Example: mnist-suite data list
    """
    from suite.cli import console
    from suite.data import cache
    from suite.data.registry import DATASETS
    from suite.store.files import dump_json

    rows: list[dict[str, Any]] = []
    for name, entry in DATASETS.items():
        here = all(status.state == "ok" for status in cache.verify(name, quick=True))
        rows.append({"name": name, "title": entry.title, "classes": len(entry.classes), "here": here})
    if as_json:
        print(dump_json(rows))
        return
    for row in rows:
        mark = "here" if row["here"] else "not fetched"
        console.out.print(f"{row['name']:14} {row['title']:44} {row['classes']:3} classes   {mark}")
    console.out.print("folder:PATH    your own images, one folder a class")


@data_app.command("fetch")
def data_fetch(names: list[str], quiet: Quiet = False, as_json: Json = False) -> None:
    """Fetch data sets into the cache, checked by SHA-256.

    \b
    Example: mnist-suite data fetch mnist fashion-mnist
    """
    from suite.cli import console
    from suite.data import fetch
    from suite.store.files import dump_json

    reports: list[dict[str, Any]] = []
    with console.downloading(quiet) as on_progress:
        for name in names:
            report = fetch.fetch(name, on_progress=on_progress)
            reports.append({"name": name, "source": report.source, "folder": str(report.folder)})
    if as_json:
        print(dump_json(reports))
    else:
        for r in reports:
            console.out.print(f"{r['name']}: {r['source']}, in {r['folder']}")


@data_app.command("verify")
def data_verify(names: Annotated[list[str] | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Compare every cached file with its SHA-256; exit code 1 if one is damaged.

    \b
    Example: mnist-suite data verify mnist
    """
    from suite.cli import console
    from suite.data import cache
    from suite.data.registry import DATASETS
    from suite.store.files import dump_json

    rows: list[dict[str, str]] = []
    for name in names or DATASETS:
        for status in cache.verify(name):
            if names or status.state != "missing":
                rows.append({"dataset": name, "file": str(status.path), "state": status.state})
    if as_json:
        print(dump_json(rows))
    else:
        for row in rows or [{"state": "nothing is cached yet", "dataset": "", "file": ""}]:
            console.out.print(f"{row['state']:8} {row['dataset']:14} {row['file']}")
    if any(row["state"] == "damaged" or (names and row["state"] == "missing") for row in rows):
        raise typer.Exit(1)


@data_app.command("import")
def data_import(
    path: Path, name: Annotated[str, typer.Option("--as", help="The data set it holds.")] = "mnist"
) -> None:
    """Take files that you placed by hand into the cache, checked by SHA-256.

    \b
    Example: mnist-suite data import ~/Downloads/mnist --as mnist
    """
    from suite.cli import console
    from suite.data import fetch

    fetch.import_path(path, name)
    console.out.print(f"{name}: imported from {path}")


@data_app.command("sample")
def data_sample(
    name: Annotated[str, typer.Argument()] = "mnist",
    index: Annotated[int | None, typer.Option(help="Which validation image; one at random where left out.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write it as a PNG instead.")] = None,
    as_json: Json = False,
) -> None:
    """One validation image, drawn in characters.

    \b
    Examples: mnist-suite data sample mnist --index 3
              mnist-suite data sample fashion-mnist --to shirt.png
    """
    import random

    from suite.cli import console
    from suite.data.datasets import search_splits
    from suite.store.files import dump_json

    splits = search_splits(name)
    count = len(splits.validation.labels)
    index = random.randrange(count) if index is None else index
    if not 0 <= index < count:
        raise InputError(f"--index {index} is outside the {count} validation images of {name}.")
    pixels = splits.validation.images[index].mean(0).round().astype(int)
    label = splits.info.classes[int(splits.validation.labels[index])]
    if as_json:
        print(dump_json({"index": index, "label": label, "pixels": pixels.tolist()}))
        return
    if to is not None:
        from PIL import Image

        Image.fromarray(splits.validation.images[index].transpose(1, 2, 0).squeeze()).save(to)
        console.out.print(f"{name} validation image {index}, a {label}, is in {to}")
        return
    for line in pixels:
        console.out.print("".join(" .:-=+*#%@"[min(9, value * 10 // 256)] * 2 for value in line).rstrip())
    console.out.print(f"{name} validation image {index}: {label}")


# --- training -----------------------------------------------------------------------------------------------


@app.command()
def pretrain(
    backbone: Annotated[str, typer.Option(help="cnn, net, lean-s, lean-m, lean-l or timm:NAME.")] = "cnn",
    dataset: Annotated[str, typer.Option(help="A name from `data list`, or folder:PATH.")] = "mnist",
    changes: Set = None,
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Input size in pixels.")] = None,
    fraction: Annotated[float, typer.Option(help="Part of the training labels, 0 to 1.")] = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    study: StudyName = None,
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Train a backbone from random weights, for others to stand on.

    \b
    Examples: mnist-suite pretrain
              mnist-suite pretrain --backbone lean-m --set epochs=8
    """
    arm = _arm(backbone, "pretrain", None, None, changes, size, fraction, precision)
    _train_one("pretrain", arm, dataset, limit, seed, device, study, results, as_json, quiet, dry_run)


@app.command()
def finetune(
    backbone: Annotated[str, typer.Option(help="cnn, net, lean-s, lean-m, lean-l or timm:NAME.")],
    strategy: Annotated[str, typer.Option(help="head, full, lp-ft, partial, norm-only, bitfit or scratch.")] = "full",
    dataset: Annotated[str, typer.Option(help="A name from `data list`, or folder:PATH.")] = "mnist",
    source: Annotated[
        str | None, typer.Option("--from", help="Weights to start from: a study, STUDY/TRIAL, a file or a folder.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from published weights (the default for timm backbones).")
    ] = False,
    head: Annotated[str, typer.Option(help="With --strategy head: linear, mlp, ridge, logreg or knn.")] = "linear",
    changes: Set = None,
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Input size in pixels.")] = None,
    fraction: Annotated[float, typer.Option(help="Part of the training labels, 0 to 1.")] = 1.0,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    study: StudyName = None,
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Adapt a pretrained backbone to a data set.

    \b
    Examples: mnist-suite finetune --backbone timm:tf_efficientnet_lite0 --strategy head
              mnist-suite finetune --backbone cnn --dataset fashion-mnist --strategy lp-ft --from STUDY
    """
    if source and pretrained:
        raise InputError("Take either --from or --pretrained: weights come from one place.")
    weights = source or ("pretrained" if pretrained or backbone.startswith("timm:") else None)
    if strategy == "scratch":
        weights = source if source or pretrained else None
    elif weights is None:
        raise InputError(
            f"Strategy '{strategy}' needs weights to start from: say --from STUDY (for example the study that "
            f"`mnist-suite pretrain --backbone {backbone}` made), or take --strategy scratch."
        )
    arm = _arm(backbone, strategy, head, weights, changes, size, fraction, precision)
    _train_one("finetune", arm, dataset, limit, seed, device, study, results, as_json, quiet, dry_run)


def _arm(
    backbone: str,
    strategy: str,
    head: str | None,
    weights: str | None,
    changes: list[str] | None,
    size: int | None,
    fraction: float,
    precision: str,
) -> Arm:
    from pydantic import ValidationError

    from suite.spec import Arm, assignments, default_recipes, first_error, resolved

    kind: dict[str, Any] = {"kind": strategy}
    if strategy == "head":
        kind["head"] = {"kind": head}
    try:
        arm = Arm.model_validate(
            {
                "backbone": backbone,
                "strategy": kind,
                "weights": weights,
                "size": size,
                "fraction": fraction,
                "recipe": {**default_recipes.default(strategy).model_dump(), "precision": precision},
            }
        )
        return resolved(arm, assignments(changes or []))
    except (ValidationError, ValueError) as error:
        raise InputError(f"This training cannot be set up: {first_error(error)}.") from None


def _train_one(
    verb: str,
    arm: Arm,
    dataset: str,
    limit: int | None,
    seed: int,
    device: str,
    study: str | None,
    results: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    from suite.execution.plan import Options, auto_name, single
    from suite.store import study as store_study
    from suite.store.files import check_name, results_dir
    from suite.store.study import find_trial

    if printable(dataset) != dataset:
        raise InputError(f"--dataset {dataset!r} cannot be recorded: name a folder by printable text alone.")
    root = results_dir(results)
    name = check_name(study, "Study") if study else auto_name(verb, arm, dataset, seed, limit)
    experiment = single(name, arm, dataset, seed=seed, limit=limit)
    if dry_run:
        print(experiment.model_dump_json(indent=2))
        return
    status = _run(experiment, root, name, Options(device=device, resume=True), quiet)
    if not status.finished:
        why = next((s.reason for s in store_study.StudyDir(root, name).states() if s.reason), "no reason is known")
        raise WorkError(f"The training in study '{name}' came to no model: {why.rstrip('.')}.")
    best = find_trial(store_study.StudyDir(root, name), None)
    _report_trial(root, name, best, as_json)


def _report_trial(root: Path, study: str, state: Any, as_json: bool) -> None:
    from suite.cli import console
    from suite.ranking import leaderboard as board
    from suite.ranking.leaderboard import as_dict
    from suite.store.files import dump_json

    row = board.row(study, state)
    if as_json:
        print(dump_json(as_dict(row)))
        return
    low, high = 100 * (row.low or 0), 100 * (row.high or 0)
    console.out.print(
        f"{study}/{row.trial}: {board.text(row, 'accuracy')} on validation "
        f"(95% interval {low:.2f} to {high:.2f}), best of {len(row.curve)} epochs\n"
        f"{board.text(row, 'params')} parameters ({board.text(row, 'trainable')} trained), "
        f"{board.text(row, 'flops')} FLOPs an image, {board.text(row, 'seconds')} of training, "
        f"energy {board.text(row, 'energy') if row.energy is not None else row.energy_source}\n"
        f"next: mnist-suite export {study} --to model   or   mnist-suite finetune --from {study} ..."
    )


@app.command()
def sweep(
    experiment: Annotated[
        str | None, typer.Argument(help="A built-in experiment, or a file of your own.", show_default="mnist")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="In total, shared equally by the arms.")] = None,
    study: StudyName = None,
    arms: Annotated[str | None, typer.Option(help="Only these arms, separated by commas.")] = None,
    workers: Annotated[
        str, typer.Option(help="Trials at once, each in its own process; 1 runs in this one; auto: as measured.")
    ] = "1",
    population: Annotated[
        str, typer.Option(help="Train so many alike trials as one stacked model; auto: where that is faster.")
    ] = "1",
    engine: Annotated[
        str, typer.Option(help="local, or ray: on the Ray cluster of RAY_ADDRESS, else one started here.")
    ] = "local",
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage URL instead of SQLite beside the trials.",
            envvar="MNIST_SUITE_STORAGE",
            show_envvar=True,
        ),
    ] = None,
    trial_timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds that one trial may take; then it fails, and the next begins.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(min=0.25, help="GiB of main memory a trial; one that wants more fails. Linux.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that exists.")] = False,
    changes: Set = None,
    limit: Limit = None,
    max_flops: Annotated[float | None, typer.Option(help="Cap: forward FLOPs an image, such as 10e6.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Cap: parameters, such as 100e3.")] = None,
    max_latency: Annotated[float | None, typer.Option(help="Cap: milliseconds for one image, measured here.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Instead of the experiment's own.")] = None,
    device: Device = "auto",
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> None:
    """Search every arm of an experiment, to exactly so many trials; Ctrl-C stops, --resume goes on.

    \b
    Examples: mnist-suite sweep --trials 50
              mnist-suite sweep fashion --trials 20 --workers 2
              mnist-suite sweep ./my_experiment.py --resume
              mnist-suite sweep --study fashion --resume
              mnist-suite sweep --trials 50 --max-flops 10e6
              mnist-suite sweep --trials 50 --population auto
              RAY_ADDRESS=10.0.0.1:6379 mnist-suite sweep --trials 500 --engine ray --workers auto
    """
    from suite.cli import console
    from suite.ranking.leaderboard import DEFAULT, as_dict
    from suite.spec import load
    from suite.store.files import check_name, dump_json, results_dir
    from suite.store.study import open_study

    if engine not in ("local", "ray"):
        raise InputError(f"There is no engine '{engine}'; this version has: local, ray.")
    root = results_dir(results)
    if experiment is None and resume and study and (begun := open_study(root, study).study()):
        declaration = begun.experiment  # as the study began, with what the command line changed then
    else:
        declaration = load.load(experiment or "mnist")
    plan = _changed(declaration, trials, arms, changes, limit, seed)
    plan = _capped(plan, max_flops, max_params, max_latency)
    name = check_name(study or plan.name, "Study")
    if dry_run:
        print(plan.model_dump_json(indent=2))
        return
    from suite.execution.plan import Options

    options = Options(
        workers=_count(workers, "--workers"),
        population=_count(population, "--population"),
        engine=engine,
        device=device,
        storage=storage,
        resume=resume,
        trial_seconds=trial_timeout,
        trial_memory=round(memory_limit * 2**30) if memory_limit else None,
    )
    status = _run(plan, root, name, options, quiet)
    rows = console.gather(root, name, sort="accuracy")
    if as_json:
        print(dump_json({"status": status.model_dump(), "rows": [as_dict(r) for r in rows]}))
    else:
        console.print_leaderboard(rows, DEFAULT, sort="accuracy", top=15, title=f"Study {name}")


def _count(text: str, option: str) -> int:
    """A number of trials, or 0 for 'auto'."""
    if text == "auto":
        return 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 256:
        raise InputError(f"{option} takes a number from 1 to 256, or auto; not '{text}'.")
    return int(text)


def _capped(plan: Experiment, flops: float | None, params: float | None, milliseconds: float | None) -> Experiment:
    """The experiment with the caps of the command line; those that it declares itself stay where none is given."""
    from suite.spec import Caps

    given = {
        "flops": int(flops) if flops is not None else None,
        "params": int(params) if params is not None else None,
        "latency": milliseconds / 1000 if milliseconds is not None else None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return plan
    if min(given.values()) <= 0:
        raise InputError("A cap must be above zero.")
    return plan.model_copy(update={"caps": (plan.caps or Caps()).model_copy(update=given)})


def _changed(
    experiment: Experiment,
    trials: int | None,
    arms: str | None,
    changes: list[str] | None,
    limit: int | None,
    seed: int | None,
) -> Experiment:
    """The experiment as the command line asks for it."""
    from pydantic import ValidationError

    from suite.spec import Experiment, assignments, first_error, resolved

    chosen = dict(experiment.arms)
    if arms is not None:
        wanted = [arm.strip() for arm in arms.split(",") if arm.strip()]
        unknown = [arm for arm in wanted if arm not in chosen]
        if unknown or not wanted:
            raise InputError(
                f"Experiment '{experiment.name}' has no arm {', '.join(map(repr, unknown)) or 'of that name'}; "
                f"it has: {', '.join(chosen)}."
            )
        chosen = {arm: chosen[arm] for arm in wanted}
    try:
        params = assignments(changes or [])
        chosen = {name: resolved(arm, params) for name, arm in chosen.items()}
        space = {path: r for path, r in experiment.space.items() if path not in params}
        chosen = {
            name: arm.model_copy(update={"space": {p: r for p, r in arm.space.items() if p not in params}})
            for name, arm in chosen.items()
        }
        update: dict[str, Any] = {"arms": chosen, "space": space}
        update |= {k: v for k, v in (("trials", trials), ("limit", limit), ("seed", seed)) if v is not None}
        return Experiment.model_validate(dict(experiment) | update)
    except (ValidationError, ValueError) as error:
        raise InputError(f"Experiment '{experiment.name}' cannot be changed so: {first_error(error)}.") from None


def _run(
    experiment: Experiment,
    root: Path,
    name: str,
    options: Options,
    quiet: bool,
) -> Any:
    """Drive a study to its end, showing how it goes; leaves by exit code where it was stopped or failed."""
    from suite.cli import console
    from suite.store import study as store_study
    from suite.store.files import make_writable, on_network_disk

    make_writable(root)
    if options.storage is None and (kind := on_network_disk(root)):
        console.err.print(
            f"warning: {root} is on a network disk ({kind}), where SQLite can lose data; "
            "consider --storage postgresql+psycopg://..."
        )
    from dataclasses import replace

    from suite.execution.controller import Stop
    from suite.execution.sweep import sweep

    stop = Stop()
    command = _command()
    if options.storage is not None:
        command = command.replace(options.storage, "STORAGE")  # it may hold a password
    options = replace(options, command=command)
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said and not quiet:
            said.add(text)
            console.err.print(text)

    with _signals(stop), console.following(root, quiet=quiet) as display:
        for status in sweep(experiment, root, study=name, options=options, stop=stop):
            with contextlib.suppress(OSError):  # a terminal that has gone does not stop the work
                display.update(status)
                if stop.reason:
                    say(f"{stop.reason}: stopping at the next step; once more ends at once.")
                elif status.message and status.state == "running":
                    say(f"note: {status.message}")
    if stop.reason:
        with contextlib.suppress(OSError):
            say(f"Stopped ({stop.reason}). Go on with the same command and --resume.")
        raise typer.Exit(130 if stop.reason == "SIGINT" else 143)
    last = display.last
    if last is None or last.state == "failed":
        why = last.message if last else "nothing ran"
        raise WorkError(f"Study '{name}' stopped early: {why.rstrip('.')}.")
    if last.failed and not last.finished:
        states = store_study.StudyDir(root, name).states()
        why = next(s.reason for s in states if s.reason)
        raise WorkError(f"Every trial of study '{name}' failed: {why.rstrip('.')}.")
    return last


class _Interrupted(BaseException):
    """A signal came while nothing was under way that would have to be put down."""


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """While this holds, the polite signals set `stop`; a second one ends the process at once, and before the work
    has begun so does the first."""
    import signal

    def on_signal(number: int, _: Any) -> None:
        if stop.reason:  # asked twice; whatever is on disk is whole
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the progress bar had hidden the cursor
            os._exit(130 if number == signal.SIGINT else 143)
        stop.reason = signal.Signals(number).name
        if not stop.heeded:
            raise _Interrupted

    polite = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        polite.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in polite}
    try:
        yield
    except _Interrupted:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- looking --------------------------------------------------------------------------------------------------


@app.command()
def stop(study: str, results: Results = None, reason: str = "asked by `mnist-suite stop`") -> None:
    """Ask a running study to put everything down cleanly; works from any host that sees the directory.

    \b
    Example: mnist-suite stop mnist
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.study import open_study

    directory = open_study(results_dir(results), study)
    status = directory.status()
    if status is None or status.state != "running":
        console.out.print(f"Study '{study}' is not running ({status.state if status else 'never started'}).")
        return
    directory.request_stop(printable(reason))
    dead = "" if directory.live() else " It has been silent for a while and may be dead: --resume then goes on at once."
    console.out.print(f"Asked pid {status.pid} on {status.host} to stop; resume later with --resume.{dead}")


@app.command()
def status(
    study: Annotated[str | None, typer.Argument()] = None, results: Results = None, as_json: Json = False
) -> None:
    """How the studies stand.

    \b
    Example: mnist-suite status
    """
    import time

    from suite.cli import console
    from suite.store import study as store_study
    from suite.store.files import dump_json, results_dir
    from suite.store.study import STALE_SECONDS, open_study

    root = results_dir(results)
    chosen = [open_study(root, study)] if study else store_study.studies(root)
    found: list[dict[str, Any]] = []
    for directory in chosen:
        at = directory.status()
        if at is None:
            found.append({"study": directory.name, "state": "never started"})
            continue
        stale = at.state == "running" and time.time() - at.heartbeat > STALE_SECONDS
        found.append({**at.model_dump(), "state": "stale" if stale else at.state})
    if as_json:
        print(dump_json(found))
        return
    if not found:
        console.out.print(f"There are no studies in {root}. Start one: mnist-suite sweep --trials 50")
    for at in found:
        done = sum(at.get(k, 0) for k in ("finished", "pruned", "failed"))
        best = f", best {100 * at['best_accuracy']:.2f}%" if at.get("best_accuracy") is not None else ""
        eta = f", about {console.duration(at['eta_seconds'])} left" if at.get("eta_seconds") else ""
        console.out.print(f"{at['study']}: {at['state']}, {done}/{at.get('planned', '?')} trials{best}{eta}")


@app.command()
def leaderboard(
    study: Annotated[str | None, typer.Argument(help="One study; all of them where left out.")] = None,
    sort: Annotated[str, typer.Option(help="A column: accuracy, flops, params, seconds, energy, ...")] = "accuracy",
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows.")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it on screen as it changes; Ctrl-C ends.")] = False,
    with_fronts: Annotated[
        bool, typer.Option("--pareto", help="Add the front for every cost: knee, hypervolume, price of 0.1 point.")
    ] = False,
    results: Results = None,
) -> None:
    """Accuracy and compute cost of every trial, from the results directory alone.

    \b
    Examples: mnist-suite leaderboard mnist
              mnist-suite leaderboard mnist --sort flops --markdown
              mnist-suite leaderboard --json > rows.json
              mnist-suite leaderboard mnist --pareto --json
    """
    from suite.cli import console
    from suite.ranking import leaderboard as board
    from suite.ranking.leaderboard import DEFAULT, as_dict
    from suite.store import study as store_study
    from suite.store.files import dump_json, results_dir
    from suite.store.study import open_study

    root = results_dir(results)
    if study is None and not store_study.studies(root):
        open_study(root, None)
    keys: list[str] = [key.strip() for key in columns.split(",")] if columns else [*DEFAULT]
    if study is None and not columns:
        keys.insert(1, "study")
    for key in [*keys, sort]:
        board.column(key)
    if sum((as_json, as_csv, as_markdown, watch)) > 1:
        raise InputError("Take one of --json, --csv, --markdown and --watch.")
    if watch:
        _watch(root, study, keys, sort, top)
        return
    rows = console.gather(root, study, sort=sort)
    if with_fronts and (as_csv or as_markdown):
        raise InputError("--pareto goes with the table and with --json.")
    if with_fronts:
        _print_fronts(root, study, rows, top, as_json)
    elif as_json:
        print(dump_json([as_dict(row) for row in rows[:top]]))
    elif as_csv:
        print(board.as_csv(rows[:top]), end="")
    elif as_markdown:
        print(board.as_markdown(rows[:top], keys), end="")
    else:
        console.print_leaderboard(rows, keys, sort=sort, top=top, title=f"Study {study}" if study else "All studies")


def _print_fronts(root: Path, study: str | None, rows: list[Any], top: int | None, as_json: bool) -> None:
    from suite.cli import console
    from suite.ranking import pareto
    from suite.ranking.leaderboard import as_dict
    from suite.ranking.study_costs import study_costs
    from suite.store.files import dump_json
    from suite.store.study import open_study

    found = pareto.fronts(rows)
    if not as_json:
        console.out.print("\n\n".join(pareto.as_text(one) for one in found.values()))
        return
    costs = study_costs(root, open_study(root, study)) if study else None
    print(dump_json({"rows": [as_dict(row) for row in rows[:top]], "fronts": found, "costs": costs}))


def _watch(root: Path, study: str | None, keys: list[str], sort: str, top: int | None) -> None:
    import time

    from rich.live import Live

    from suite.cli import console

    with Live(console=console.out, auto_refresh=False, screen=console.out.is_terminal) as live:
        while True:
            rows = console.gather(root, study, sort=sort)
            height = top or max(5, console.out.height - 4)
            live.update(console.table(rows, keys, top=height, title=study or "All studies"), refresh=True)
            time.sleep(1.0)


# --- models ------------------------------------------------------------------------------------------------------


@app.command()
def export(
    trial: Annotated[
        str | None, typer.Argument(help="STUDY or STUDY/TRIAL; the newest study's best if left out.")
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must not hold anything yet.")] = Path("model"),
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Write the best model (by validation accuracy) as safetensors, with its card; checked before it is published.

    \b
    Example: mnist-suite export mnist --to model
    """
    from suite.cli import console
    from suite.export.publish import export as write
    from suite.store.files import dump_json, results_dir

    done = write(results_dir(results), trial, to)
    if as_json:
        print(dump_json(done))
        return
    console.out.print(
        f"{done['trial']} ({100 * done['accuracy']:.2f}% on validation) is in {to}\n"
        f"load it with: {done['load']}\ntry it with: mnist-suite predict {to} IMAGE"
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `export` wrote.")],
    images: Annotated[list[Path] | None, typer.Argument(help="PNG or JPEG, any size and colour.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 3,
    serve: Annotated[bool, typer.Option("--serve", help="Answer JSON lines on stdin, for other programs.")] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Say what is on images.

    \b
    Example: mnist-suite predict model digit.png --json
    """
    from suite.cli import console
    from suite.export import predict as export_predict
    from suite.export.predict import Predictor
    from suite.store.files import dump_json

    if serve:
        export_predict.serve(model, device)
        return
    if not images:
        raise InputError("Name at least one image: mnist-suite predict MODEL_DIR IMAGE...")
    predictor = Predictor(model, device)
    answers = [predictor.file(path) for path in images]
    if as_json:
        print(dump_json(answers))
        return
    for answer in answers:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:top]
        shown = "  ".join(f"{label} {100 * p:.1f}%" for label, p in ranked)
        console.out.print(f"{answer['image']}: {answer['label']}   ({shown})")


@app.command()
def tui(
    results: Results = None,
    readonly: Annotated[
        bool | None,
        typer.Option("--readonly/--read-write", help="Look only; the default with --web.", show_default=False),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve it to a browser on this machine.")] = False,
) -> None:
    """The dashboard: live leaderboards, plots, launching and stopping. It never owns a training.

    \b
    Examples: mnist-suite tui
              mnist-suite tui --results /shared/results --readonly
    """
    from suite.store.files import results_dir
    from tui.app import run

    raise typer.Exit(run(results_dir(results), readonly, web))


@app.command()
def bench(
    name: Annotated[
        str | None, typer.Argument(help="One of them (a wrong name lists all); all where left out, about 15 minutes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine: ours beside the plain alternative, in one run, as ratios.

    \b
    Examples: mnist-suite bench train
              mnist-suite bench --json > bench.json
    """
    from suite.bench import micro as benchmarks
    from suite.cli import console
    from suite.store.files import dump_json

    if as_json:
        figures = [dict(zip(("name", "value", "unit", "how"), f, strict=True)) for f in benchmarks.bench(name)]
        print(dump_json({"machine": benchmarks.machine(), "figures": figures}))
        return
    for figure, value, unit, how in benchmarks.bench(name):
        console.out.print(f"{figure:26} {value:12.4g} {unit:10} {how}")
    console.out.print("  ".join(f"{key}: {value}" for key, value in benchmarks.machine().items()))


@app.command()
def doctor(
    study: Annotated[str | None, typer.Argument(help="Look through this study's files instead.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="With STUDY: set aside what is damaged.")] = False,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """What this machine offers: devices, precision, data, weights, disk, versions. Or what is wrong with a study.

    \b
    Examples: mnist-suite doctor
              mnist-suite doctor mnist --repair
    """
    from suite.cli import console
    from suite.store import study as store_study
    from suite.store.files import dump_json, results_dir

    if study is not None:
        _doctor_of(store_study.StudyDir(results_dir(results), study), repair, as_json)
        return
    if repair:
        raise InputError("--repair needs a study: mnist-suite doctor STUDY --repair.")
    from suite.cli.doctor import examine

    report = examine(results_dir(results))
    if as_json:
        print(dump_json(report))
        return
    for part, facts in report.items():
        console.out.print(f"{part}")
        for key, value in facts.items():
            console.out.print(f"  {key:44} {value}")


def _doctor_of(directory: StudyDir, repair: bool, as_json: bool) -> None:
    """Exit code 1 if anything is left to mend."""
    from dataclasses import asdict

    from suite.cli import console
    from suite.store import repair as mending
    from suite.store.files import dump_json
    from suite.store.study import final_of, open_study

    if not directory.path.is_dir():
        open_study(directory.path.parent, directory.name)
    found = mending.examine(directory)
    left = found
    if repair and found:
        final = final_of(directory)
        with directory.hold(), final.hold() if final.path.is_dir() else contextlib.nullcontext():
            left = mending.mend(directory, mending.examine(directory))
    if as_json:
        print(dump_json([{**asdict(f), "mended": repair and f not in left} for f in found]))
    else:
        for f in found:
            done = "done" if repair and f not in left else "to do"
            console.out.print(f"{f.place} {f.what} ({done}: {f.remedy})")
        say = f"{len(found)} findings, {len(found) - len(left)} mended" if found else "nothing is wrong"
        console.out.print(f"{directory.name}: {len(directory.trials())} trials, {say}.")
    if left:
        raise typer.Exit(1)


# --- figures that can be trusted -----------------------------------------------------------------------------------


def _leave_if_stopped(stop: Stop, then: str) -> None:
    from suite.cli import console

    if stop.reason:
        with contextlib.suppress(OSError):
            console.err.print(f"Stopped ({stop.reason}): {then}.")
        raise typer.Exit(130 if stop.reason == "SIGINT" else 143)


@app.command()
def evaluate(
    study: str,
    final: Annotated[bool, typer.Option("--final", help="The choosing is over: now read test.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Finalists an arm, by validation accuracy.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Fresh trainings of every finalist.")] = 5,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Trainings at once.")] = 1,
    device: Device = "auto",
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test accuracy with its uncertainty: finalists trained again with fresh seeds, the test images read once.

    \b
    Example: mnist-suite evaluate mnist --final --top 3 --seeds 5
    """
    from suite.cli import console
    from suite.evaluation import final as evaluation_final
    from suite.evaluation.final import APART, as_text
    from suite.execution.controller import Stop
    from suite.store.files import dump_json, results_dir
    from suite.store.study import open_study

    root = results_dir(results)
    directory = open_study(root, study)
    if not final:
        raise InputError(APART.format(study=study))
    stop = Stop()
    found: Any = None
    command = _command()
    with _signals(stop):
        chosen = evaluation_final.plan(
            root, directory, top=top, seeds=seeds, place=device, workers=workers, command=command
        )
        with console.following(directory.path, quiet=quiet) as display:
            for status in evaluation_final.train(chosen, stop=stop, workers=workers):
                display.update(status)
        if not stop.reason:
            with console.drawing("models tested", quiet) as on_model:
                found = evaluation_final.judge(chosen, on_model=on_model)
    _leave_if_stopped(stop, "the same command goes on from here")
    print(dump_json(found) if as_json else as_text(found))


@app.command()
def rerun(
    trial: Annotated[str, typer.Argument(help="STUDY/TRIAL; a study alone means its best trial.")],
    results: Results = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a trial again and say whether accuracy, curve and weights come out identical; exit code 1 if not.

    \b
    Example: mnist-suite rerun mnist/0007
    """
    from suite.cli import console
    from suite.evaluation.rerun import rerun as repeat
    from suite.execution.controller import Stop
    from suite.store.files import dump_json, results_dir

    root, stop, answer = results_dir(results), Stop(), {}
    with _signals(stop), console.following(root, quiet=quiet) as display:

        def on_status(place: Path, status: Any) -> None:
            display.results = place
            display.update(status)

        try:
            answer = repeat(root, trial, stop=stop, on_status=on_status)
        except InputError:
            if stop.reason is None:
                raise
    _leave_if_stopped(stop, "a repeat begins anew")
    if as_json:
        print(dump_json(answer))
    elif answer["identical"]:
        console.out.print(f"{answer['trial']}: identical (state, accuracy, loss, curve, weights)")
    else:
        console.out.print(f"{answer['trial']}: NOT identical")
    if not as_json:
        for kind, facts in (("differs", answer["differs"]), ("changed since", answer["surroundings"])):
            for key, (before, now) in facts.items():
                console.out.print(f"  {kind}: {key} was {before}, is {now}")
    if not answer["identical"]:
        raise typer.Exit(1)


@app.command()
def report(
    study: Annotated[str | None, typer.Argument(help="The newest one where left out.")] = None,
    to: Annotated[Path, typer.Option("--to", help="A .html file, or .md with PNGs beside it.")] = Path("report.html"),
    results: Results = None,
    quiet: Quiet = False,
) -> None:
    """One page about a study: question, protocol, figures with their uncertainty, pictures, costs, provenance.

    \b
    Example: mnist-suite report mnist --to report.html
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.study import open_study

    root = results_dir(results)
    directory = open_study(root, study)
    with console.drawing("pictures", quiet) as on_picture:
        from suite.reporting.report import write

        write(root, directory, to, on_picture=on_picture)
    console.out.print(f"The report on study {directory.name} is in {to}")


@app.command()
def convert(
    study: str,
    to: Annotated[Path, typer.Option("--to", help="Folder to write into.")],
    parquet: Annotated[bool, typer.Option("--parquet", help="Parquet instead of CSV.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Event files instead of CSV.")] = False,
    results: Results = None,
) -> None:
    """Write a study for other tools: trials and events as CSV or Parquet, or TensorBoard's event files.

    \b
    Examples: mnist-suite convert mnist --to tables
              mnist-suite convert mnist --to tables --parquet
              mnist-suite convert mnist --to runs --tensorboard
    """
    from suite.cli import console
    from suite.reporting import tables as write
    from suite.store.files import results_dir
    from suite.store.study import open_study

    if parquet and tensorboard:
        raise InputError("Take one of --parquet and --tensorboard.")
    directory = open_study(results_dir(results), study)
    trials, events = write.tensorboard(directory, to) if tensorboard else write.tables(directory, to, parquet=parquet)
    console.out.print(f"{trials} trials with {events} events of study {study} are in {to}")


if __name__ == "__main__":
    main()
