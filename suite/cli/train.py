"""Commands that train one model: pretrain, finetune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from suite.cli.options import LARGEST, RunOptions, own_name, takes
from suite.errors import InputError, WorkError

if TYPE_CHECKING:
    from suite.spec import Arm

BACKBONE_HELP = "cnn, net, lean-xxs, lean-xs, lean-s, lean-m, lean-l or timm:NAME."


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions):
    """Options of a single training."""

    dataset: Annotated[str, typer.Option(help="A name from `data list`, folder:PATH or csv:FILE.")] = "mnist"
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Input size in pixels.")] = None
    fit: Annotated[
        str | None,
        typer.Option(
            help="How pictures of your own become square: crop, pad or squeeze.", show_default="by their shapes"
        ),
    ] = None
    fraction: Annotated[float, typer.Option(min=0, max=1, help="Proportion of the training labels used.")] = 1.0
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="For initialisation, order and augmentation.")] = 0
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto"
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A trained model to learn from beside the labels: a study or STUDY/TRIAL, or several, separated by "
            "commas. "
            "--set distill.temperature=2, --set distill.weight=0.5."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainingOptions):
    backbone: Annotated[str, typer.Option(help=BACKBONE_HELP)] = "cnn"


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    backbone: Annotated[str, typer.Option(help=BACKBONE_HELP)]
    strategy: Annotated[
        str,
        typer.Option(help="head, full, lp-ft, partial, norm-only, bitfit, lora, prune, low-rank, int8 or scratch."),
    ] = "full"
    source: Annotated[
        str | None, typer.Option("--from", help="Initial weights: a study, STUDY/TRIAL, a file or a folder.")
    ] = None
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from published weights (the default for timm backbones).")
    ] = False
    head: Annotated[str, typer.Option(help="With --strategy head: linear, mlp, ridge, logreg or knn.")] = "linear"


@takes(PretrainOptions)
def pretrain(options: PretrainOptions) -> None:
    """Train a backbone from random weights, for use as initial weights by other trainings.

    \b
    Examples: mnist-suite pretrain
              mnist-suite pretrain --backbone lean-m --set epochs=8
              mnist-suite pretrain --backbone lean-s --teacher mnist
    """
    _train("pretrain", options, _arm(options, options.backbone, "pretrain"))


@takes(FinetuneOptions)
def finetune(options: FinetuneOptions) -> None:
    """Adapt a pretrained backbone to a data set.

    \b
    Examples: mnist-suite finetune --backbone timm:tf_efficientnet_lite0 --strategy head
              mnist-suite finetune --backbone cnn --dataset fashion-mnist --strategy lp-ft --from STUDY
              mnist-suite finetune --backbone timm:tf_efficientnet_lite0 --strategy lora --set strategy.rank=4
              mnist-suite finetune --backbone timm:tf_efficientnet_lite0 --dataset folder:photos --size 224 \\
                  --set augment.crop=0.35 --set augment.flip=true --set balance=sampler
    """
    weights = _initial_weights(options)
    _train("finetune", options, _arm(options, options.backbone, options.strategy, options.head, weights))


def _initial_weights(options: FinetuneOptions) -> str | None:
    """The `weights` of the arm. Raises InputError where the strategy needs some and none are given."""
    if options.source and options.pretrained:
        raise InputError("Take either --from or --pretrained: weights come from one place.")
    if options.source or options.pretrained:
        return options.source or "pretrained"
    if options.strategy == "scratch":
        return None
    if options.backbone.startswith("timm:"):
        return "pretrained"
    raise InputError(
        f"Strategy '{options.strategy}' needs weights to start from: give --from STUDY (for example the study of "
        f"`mnist-suite pretrain --backbone {options.backbone}`), or take --strategy scratch."
    )


def _arm(
    options: TrainingOptions, backbone: str, strategy: str, head: str | None = None, weights: str | None = None
) -> Arm:
    from suite.spec.changes import single_arm

    return single_arm(
        backbone,
        strategy,
        head=head,
        weights=weights,
        teacher=options.teacher,
        size=options.size,
        fit=options.fit,
        fraction=options.fraction,
        precision=options.precision,
        settings=options.settings or [],
    )


def _train(verb: str, options: TrainingOptions, arm: Arm) -> None:
    """Run a study of one trial and print its result."""
    from suite.cli import console, plans
    from suite.cli.run import announce_pictures, first_reason, run_study

    announce_pictures(options.dataset, quiet=options.quiet or options.dry_run)
    from suite.data.datasets import describe
    from suite.data.registry import is_own
    from suite.execution.options import Options
    from suite.execution.plan import auto_name, check, single, with_small_batches
    from suite.spec import assignments, key_path
    from suite.store.files import check_name, dump_json, results_dir
    from suite.store.study import StudyDir, find_trial

    dataset, seed, limit = own_name(options.dataset), options.seed, options.limit
    given = {tuple(key_path(name)) for name in assignments(options.settings or [])}
    if is_own(dataset) and ("recipe", "batch_size") not in given:
        # The default recipes are made for thousands of images; a person's own pictures may be a few dozen.
        images = len(describe(dataset, fraction=options.fraction, limit=limit).train_labels)
        arm = with_small_batches(arm, images)
    root = results_dir(options.results)
    name = check_name(options.study, "Study") if options.study else auto_name(verb, arm, dataset, seed, limit)
    experiment = single(name, arm, dataset, seed=seed, limit=limit)
    execution = Options(device=options.device, resume=True, retry_failed=True, skip_broken=options.skip_broken)
    if options.dry_run:
        check(experiment, root, execution, fetch=False)
        print(dump_json(experiment) if options.as_json else plans.as_text(experiment, name))
        return
    directory = StudyDir(root, name)
    repeated = any(state.state == "finished" for state in directory.states())
    status = run_study(experiment, root, name, execution, quiet=options.quiet)
    if not status.finished:
        raise WorkError(f"The training in study '{name}' produced no model: {first_reason(root, name)}.")
    console.print_trial(name, find_trial(directory, None), repeated=repeated, as_json=options.as_json)
