"""Commands that train again what a search found: evaluate, rerun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suite.cli.options import LARGEST, Device, Json, Quiet, Results, command_line, takes
from suite.cli.signals import exit_if_stopped, stopping
from suite.errors import InputError, expand_user

if TYPE_CHECKING:
    from suite.spec import Status
    from suite.store.study import StudyDir


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    study: Annotated[str, typer.Argument(help="STUDY; with --shift also STUDY/TRIAL, or a folder that `export` wrote.")]
    final: Annotated[
        bool, typer.Option("--final", help="Confirm that the search is over, so that the test images may be read.")
    ] = False
    top: Annotated[
        int, typer.Option(min=1, max=LARGEST, help="Finalists of each arm, chosen by validation accuracy.")
    ] = 3
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each finalist, each with a new seed.")] = 5
    tta: Annotated[
        list[str] | None,
        typer.Option(
            help="With --final: answer also by several views of each image: shift (four shifts by one pixel), flip "
            "(mirror images). May be repeated."
        ),
    ] = None
    ensemble: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM,ARM",
            help="With --final: also all trainings of the best finalists of these arms as one model. May be repeated.",
        ),
    ] = None
    workers: Annotated[int, typer.Option(min=1, max=256, help="Number of trainings at once.")] = 1
    shift: Annotated[
        bool,
        typer.Option(
            "--shift", help="Measure robustness: accuracy on corrupted validation images and on digits drawn in fonts."
        ),
    ] = False
    test: Annotated[
        bool, typer.Option("--test", help="With --shift: the test images, for models that --final has tested.")
    ] = False
    limit: Annotated[
        int | None, typer.Option(min=20, max=LARGEST, help="With --shift: at most N validation images.")
    ] = None
    device: Device = "auto"
    results: Results = None
    as_json: Json = False
    quiet: Quiet = False


@takes(EvaluateOptions)
def evaluate(options: EvaluateOptions) -> None:
    """Measure test accuracy over fresh seeds (--final), or robustness (--shift).

    --final trains the finalists of a search again with new seeds, then reads the test images once and records that it
    did. From the same answers it says what an ensemble of the trainings of each arm's best finalist gains. --tta and
    --ensemble add test-time augmentation and ensembles of several arms; ask for them before the first reading. --tta
    on a study that was evaluated without it reads the test images again, and that is recorded too.

    --shift trains nothing: it measures the best trial of each arm, one trial, or an exported model under stated
    corruptions (rotation, translation, blur, noise, contrast, brightness, pixelation, occlusion, thickness) and, where
    the classes are characters, on the fonts of this machine.

    \b
    Examples: mnist-suite evaluate mnist --final --top 3 --seeds 5
              mnist-suite evaluate mnist --final --tta shift --ensemble long,distilled
              mnist-suite evaluate mnist --shift
              mnist-suite evaluate mnist/0007 --shift --json
              mnist-suite evaluate model --shift
              mnist-suite evaluate mnist --shift --test
    """
    if options.shift and options.final:
        raise InputError("Take one of --final and --shift.")
    if (options.tta or options.ensemble) and not options.final:
        raise InputError("--tta and --ensemble go with --final.")
    if not options.shift and (options.test or options.limit is not None):
        raise InputError("--test and --limit go with --shift.")
    if options.test and options.limit is not None:
        raise InputError("--limit takes a part of the validation images; with --test all test images are read.")
    if options.shift:
        _shift(options)
    else:
        _final(options)


def _final(options: EvaluateOptions) -> None:
    from suite.cli import console
    from suite.cli.run import warn_of_failures
    from suite.evaluation import final as final_evaluation
    from suite.evaluation.text import as_text
    from suite.execution.stop import Stop
    from suite.models.ensembles import known_views
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
            views=known_views(options.tta or ()),
            ensembles=[[arm.strip() for arm in text.split(",")] for text in options.ensemble or ()],
        )
        with console.sweep_progress(directory.path, quiet=options.quiet) as progress:
            for status in final_evaluation.train(plan, stop=stop, workers=options.workers):
                progress.update(status)
        if not stop.reason:
            with console.step_progress("models tested", options.quiet) as on_model:
                found = final_evaluation.judge(plan, on_model=on_model)
    exit_if_stopped(stop, "The same command continues from here.")
    warn_of_failures(final_evaluation.trained(plan))
    print(dump_json(found) if options.as_json else as_text(found))


def _shift(options: EvaluateOptions) -> None:
    from suite.cli import console
    from suite.ranking.shift import as_text
    from suite.store.files import dump_json, results_dir
    from suite.store.study import split_reference

    root = results_dir(options.results)
    source, trial = _source(options.study, root), split_reference(options.study)[1]
    if isinstance(source, Path) and options.test:
        raise InputError("--test takes a study: the final evaluation records which of its models were tested.")
    with console.step_progress("sets of pictures", options.quiet) as on_step:
        from suite.evaluation import shift  # within the progress, since torch takes seconds to load

        if isinstance(source, Path):
            found = shift.measure([_exported(source, options)], None, on_step=on_step)
        elif options.test:
            tested = shift.on_test(root, source, trial, command=command_line(), place=options.device)
            found = shift.measure(tested, source, on_step=on_step)
        else:
            chosen = shift.on_validation(root, source, trial, limit=options.limit, place=options.device)
            found = shift.measure(chosen, source, on_step=on_step)
    if options.as_json:
        print(dump_json([one.as_dict() for one in found]))
        return
    console.out.print(as_text(found), highlight=False, soft_wrap=True)
    if not isinstance(source, Path) and not options.test:
        columns = "number,arm,accuracy,shift,fonts"
        console.out.print(
            f"\nCompare trials: mnist-suite leaderboard {source.name} --sort shift --columns {columns}", soft_wrap=True
        )


def _source(text: str, root: Path) -> StudyDir | Path:
    """The study that was named, or the folder of an exported model. Where a name can be both, it is the study.

    Raises InputError where it is neither.
    """
    from suite.export.card import CARD, read_card
    from suite.store.study import open_study, split_reference, studies

    if text.startswith((".", "/", "~")):
        folder = expand_user(text)
        read_card(folder)
        return folder
    name = split_reference(text)[0]
    if name not in {study.name for study in studies(root)} and os.path.isfile(os.path.join(text, CARD)):
        return Path(text)
    return open_study(root, name)


def _exported(folder: Path, options: EvaluateOptions) -> Any:
    """An exported model as the subject of `shift.measure`. Raises InputError."""
    from suite.evaluation.shift import exported
    from suite.export.card import read_card
    from suite.export.loading import load
    from suite.hardware import device

    card = read_card(folder)
    return exported(
        load(folder),
        card.preprocess,
        dataset=card.dataset,
        trial=card.trial.rpartition("/")[2],
        arm=card.strategy,
        weights_sha256=card.sha256,
        limit=options.limit,
        where=device.pick(options.device),
    )


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
