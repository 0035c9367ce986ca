"""The command that makes a trained model smaller: compress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.options import takes
from suite.cli.sweep import SweepOptions, run_search
from suite.errors import InputError

if TYPE_CHECKING:
    from suite.spec import Arm, Experiment, Pretraining

SMALL = ("lean-s", "lean-xs")  # what one of the suite's own networks is distilled into


@dataclass(frozen=True, kw_only=True)
class CompressOptions(SweepOptions):
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="PARENT",
            help="What to compress: STUDY or STUDY/TRIAL; or an experiment, whose pretraining is run first.",
            show_default="the newest study",
        ),
    ] = None
    keep: Annotated[str, typer.Option(help="Shares of the parameters to prune to, separated by commas.")] = (
        "0.5,0.25,0.125"
    )
    into: Annotated[
        str | None,
        typer.Option(
            help="Backbones to train anew with the model as their teacher, separated by commas; '' for none.",
            show_default="smaller ones of the suite's own",
        ),
    ] = None


@takes(CompressOptions)
def compress(options: CompressOptions) -> None:
    """Make a trained model smaller in several ways, and compare what each costs and answers.

    A study of one trial an arm: pruned to some shares of its parameters, factored to a low rank, distilled into smaller
    backbones, and quantised to 8-bit integers. All that are trained learn from the model as well as from the labels.
    More --trials search the learning rates. Ctrl-C stops cleanly; --resume continues.

    \b
    Examples: mnist-suite compress mnist
              mnist-suite compress mnist/12 --keep 0.25,0.1 --into lean-xs
              mnist-suite compress fashion --arms prune-25,int8 --set epochs=3
              mnist-suite compress mnist --trials 40 --workers auto
    """
    from suite.spec.load import experiment_names
    from suite.store.files import results_dir
    from suite.store.study import open_study, split_reference

    root = results_dir(options.results)
    reference = options.experiment
    name = split_reference(reference)[0] if reference else None
    if reference in experiment_names() and not (root / reference / "study.json").is_file():
        declared = _of_experiment(reference, options)
    else:
        declared = _of_trial(root, open_study(root, name).name, reference, options)
    run_search(options, options.changed(declared), root)


def _of_trial(root: Path, study: str, reference: str | None, options: CompressOptions) -> Experiment:
    """The experiment that compresses a trial. Raises InputError where it has no model of its own to start from."""
    from suite.execution.weights import weights_of
    from suite.spec import Arm
    from suite.store.study import StudyDir, find_trial, split_reference

    state = find_trial(StudyDir(root, study), split_reference(reference)[1] if reference else None)
    trial, source = state.trial, f"{study}/{state.id}"
    weights_of(str(root / study / "trials" / state.id), root)
    parent = Arm(backbone=trial.backbone, size=trial.size, fraction=trial.fraction)
    return _experiment(f"{study}-compressed", trial.dataset, parent, source, options, limit=trial.limit)


def _of_experiment(name: str, options: CompressOptions) -> Experiment:
    """The experiment that compresses the pretrained model of another one."""
    from suite.spec import Arm
    from suite.spec.load import load_experiment

    declared = load_experiment(name)
    plan = declared.pretraining
    if plan is None:
        raise InputError(
            f"There is no study '{name}' to compress a model of, and the experiment of that name pretrains none: run "
            f"`mnist-suite sweep {name}` first."
        )
    plan = plan.model_copy(update={"also": ()})  # what is compressed learns from its parent alone
    parent = Arm(backbone=plan.backbone)
    return _experiment(f"{name}-compressed", plan.dataset, parent, "experiment", options, pretraining=plan)


def _experiment(
    name: str,
    dataset: str,
    parent: Arm,
    source: str,
    options: CompressOptions,
    *,
    limit: int | None = None,
    pretraining: Pretraining | None = None,
) -> Experiment:
    from suite.cli import console
    from suite.spec import Experiment
    from suite.spec.compression import compressions

    into = [b for b in SMALL if b != parent.backbone] if not parent.backbone.startswith("timm:") else []
    if options.into is not None:
        into = [backbone.strip() for backbone in options.into.split(",") if backbone.strip()]
    arms = compressions(parent, source, keep=_shares(options.keep), into=into)
    if not options.quiet:
        console.err.print(f"trying in which ways {parent.backbone} can be made smaller", highlight=False)
    if unfit := _unfit(arms, dataset):
        told = "; ".join(f"{arm}: {reason.rstrip('.')}" for arm, reason in unfit.items())
        console.err.print(f"warning: left out {told}.", highlight=False, soft_wrap=True)
    arms = {arm: way for arm, way in arms.items() if arm not in unfit}
    if not arms:
        raise InputError(f"{parent.backbone} cannot be compressed in any of these ways.")
    return Experiment(
        name=name,
        question=f"What does it cost in accuracy to make {parent.backbone} smaller?",
        dataset=dataset,
        pretraining=pretraining,
        arms=arms,
        trials=len(arms),
        pruning=None,
        limit=limit,
    )


def _unfit(arms: dict[str, Arm], dataset: str) -> dict[str, str]:
    """Why some of the arms do not fit the parent's kind of model, by arm."""
    from suite.data.datasets import info
    from suite.models.feasibility import refusal
    from suite.models.preprocessing import of_arm

    known = info(dataset)
    channels, classes = known.channels, len(known.classes)
    found = {
        name: refusal(arm.backbone, arm.strategy, size=of_arm(arm, known).size, channels=channels, classes=classes)
        for name, arm in arms.items()
    }
    return {name: reason for name, reason in found.items() if reason is not None}


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(f"--keep takes shares of the parameters above 0, such as 0.5,0.25; not '{text}'.")
    return shares
