"""What `--dry-run` says of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.spec import Arm, Experiment, Range


def as_text(experiment: Experiment, study: str) -> str:
    """A summary for people; `--json` prints every choice."""
    from suite.execution.plan import pretrainings_of

    quota = experiment.quota()
    count = sum(quota.values())
    lines = [
        f"Study {study} would run {count} {'trial' if count == 1 else 'trials'} on {experiment.dataset}"
        + (f", at most {experiment.limit} images of each split" if experiment.limit else "")
        + "; nothing was written or trained.",
        f"  question: {experiment.question}",
    ]
    lines += [_pretraining(plan) for plan in pretrainings_of(experiment)]
    width = max(map(len, experiment.arms))
    for name, arm in experiment.arms.items():
        lines.append(f"  {name:{width}}  {quota[name]:4d} x {_arm(arm)}")
        lines += _ranges(arm.space, f"  {'':{width}}         searched: ")
    lines += _ranges(experiment.space, "  searched in every arm: ")
    if experiment.pruning is not None and count > 1 and experiment.pruner is None:
        how = experiment.pruning
        lines.append(f"  short trainings first: 1 trial in {how.factor} goes on, in batches of {how.batch}")
    if experiment.caps is not None and (caps := experiment.caps.model_dump(exclude_none=True)):
        lines.append(f"  caps: {_values(caps)}")
    if experiment.finalists:
        lines.append(f"  then the best {experiment.finalists} recipes of each arm again, with three fresh seeds")
    return "\n".join([*lines, "`--json` prints every choice."])


def _pretraining(plan: Experiment) -> str:
    (arm,) = plan.arms.values()
    return f"  first: {arm.backbone} is pretrained on {plan.dataset} for {arm.recipe.epochs:g} epochs"


def _arm(arm: Arm) -> str:
    recipe = arm.recipe
    head = f" ({arm.strategy.head.kind})" if arm.strategy.kind == "head" else ""
    parts = [f"{arm.backbone}, {arm.strategy.kind}{head}"]
    parts += [f"from {arm.weights}"] if arm.weights is not None else []
    parts += [f"with teacher {arm.teacher}"] if arm.teacher is not None else []
    parts += [f"at {arm.size} px"] if arm.size is not None else []
    parts += [f"{100 * arm.fraction:g} % of the labels"] if arm.fraction < 1 else []
    kept = {"lr": recipe.lr, "batch_size": recipe.batch_size, "schedule": recipe.schedule}
    return ", ".join([*parts, f"{recipe.epochs:g} epochs, {recipe.optimizer}, {_values(kept)}"])


def _ranges(space: dict[str, Range], before: str) -> list[str]:
    return [before + "; ".join(f"{name} {_range(choices)}" for name, choices in space.items())] if space else []


def _range(choices: Range) -> str:
    if choices.kind == "choice":
        return "/".join(map(str, choices.values))
    return f"{choices.low:g} to {choices.high:g}{' (log)' if choices.kind == 'log' else ''}"


def _values(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={f'{v:g}' if isinstance(v, float) else v}" for name, v in values.items())
