"""Every choice that an experiment leaves open, tried before anything is written or trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from suite.data.cache import verify
from suite.data.datasets import describe, info
from suite.data.registry import is_own
from suite.data.splits import Info
from suite.errors import InputError
from suite.execution.weights import teacher_of, weights_of
from suite.models.assembly import build, load_weights
from suite.models.feasibility import refusal
from suite.models.preprocessing import of_arm
from suite.models.pretrained import PRETRAINED
from suite.models.teacher import load_teacher
from suite.models.weight_sources import find_pretrained
from suite.spec import FROM_RANDOM, Arm, Choice, Experiment, Params, first_error, key_path, resolved

MOST = 200  # combinations of an arm's choices that are all tried; of more, each value beside the arm's own others


def refuse_bad(experiments: list[Experiment], results: Path, *, fetch: bool, begun: bool = False) -> None:
    """Raises InputError, in one paragraph, about all choices of all arms that cannot run.

    Without `fetch` a data set that is not in the cache is taken to be as the registry says. Of a study that has `begun`
    it is not asked whether the backbones take the choices.
    """
    found: dict[str, list[str]] = {}  # arms by problem
    for experiment in experiments:
        choices = _Choices(experiment, results, fetch, begun)
        for name in experiment.arms:
            for problem in choices.problems(name):
                arms = found.setdefault(problem, [])
                if name not in arms:
                    arms.append(name)
    if len(found) == 1 and len(experiments[0].arms) == 1:
        raise InputError(next(iter(found)))
    if found:
        told = [f"Arm {' and '.join(map(repr, arms))}: {problem}" for problem, arms in found.items()]
        raise InputError(" ".join(told))


class _Choices:
    """The choices of one experiment, each tried once."""

    def __init__(self, experiment: Experiment, results: Path, fetch: bool, begun: bool) -> None:
        self.experiment, self.results, self.begun = experiment, results, begun
        name = experiment.dataset
        self.described = fetch or is_own(name) or all(status.state == "ok" for status in verify(name, quick=True)[:2])
        self._weights: dict[tuple[str, int | None, str | None], str | None] = {}

    def problems(self, name: str) -> Iterator[str]:
        """What cannot run of an arm, in sentences."""
        arm = self.experiment.arms[name]
        ranges = {**self.experiment.space, **arm.space}
        choices = {
            path: values.values
            for path, values in ranges.items()
            if isinstance(values, Choice) and key_path(path)[0] != "recipe"
        }
        for params in _combinations(choices):
            try:
                yield from self._problems_of(resolved(arm, params), self._batch_sizes(arm))
            except InputError as error:
                yield str(error)
            except ValueError as error:
                yield f"It cannot take {params}: {first_error(error)}."

    def _problems_of(self, arm: Arm, batch_sizes: tuple[int, int]) -> Iterator[str]:
        smallest, largest = batch_sizes
        known, images = self._data(arm.fraction)
        if images is not None and largest > images:
            yield (
                f"Batches of {largest} may be used, but there are only {images} training images: take smaller batches "
                "(--set batch_size=N) or more data."
            )
        reason = None
        if not self.begun:
            reason = refusal(
                arm.backbone,
                arm.strategy,
                channels=known.channels,
                size=of_arm(arm, known).size,
                classes=len(known.classes),
                single=smallest == 1,
            )
        reason = reason or self._wrong_weights(arm, known) or self._wrong_teacher(arm, known)
        if reason is not None:
            yield reason

    def _batch_sizes(self, arm: Arm) -> tuple[int, int]:
        """The smallest and the largest that trials may use."""
        choices = {**self.experiment.space, **arm.space}.get("batch_size")
        if choices is None:
            return arm.recipe.batch_size, arm.recipe.batch_size
        ends = choices.values if isinstance(choices, Choice) else (choices.low, choices.high)
        return min(map(int, ends)), max(map(int, ends))

    def _data(self, fraction: float) -> tuple[Info, int | None]:
        """The data set, and its number of training images where that is known. Raises InputError."""
        if not self.described:
            return info(self.experiment.dataset), None
        found = describe(self.experiment.dataset, fraction=fraction, limit=self.experiment.limit)
        return found.info, len(found.train_labels)

    def _wrong_weights(self, arm: Arm, known: Info) -> str | None:
        """Why the arm cannot start from its weights."""
        key = (arm.backbone, arm.size, arm.weights)
        if arm.strategy.kind not in FROM_RANDOM and key not in self._weights:
            try:
                self._check_weights(arm, known)
                self._weights[key] = None
            except InputError as error:
                self._weights[key] = str(error)
        return self._weights.get(key)

    def _wrong_teacher(self, arm: Arm, known: Info) -> str | None:
        """Why the arm cannot learn from its teacher."""
        if arm.teacher in (None, "experiment"):
            return None
        try:
            load_teacher(teacher_of(arm.teacher, self.results), of_arm(arm, known), len(known.classes), self.results)
        except InputError as error:
            return str(error)
        return None

    def _check_weights(self, arm: Arm, known: Info) -> None:
        """Raises InputError where the weights are missing, damaged, or of another architecture."""
        plan = self.experiment.pretraining
        if arm.weights == "experiment":
            if plan is not None and plan.backbone != arm.backbone:
                raise InputError(
                    f"The pretraining of the experiment trains {plan.backbone}, whose weights do not fit "
                    f"{arm.backbone}: pretrain the same backbone, or take other weights."
                )
        elif arm.weights == PRETRAINED:
            find_pretrained(arm.backbone)
        elif arm.weights is not None:
            weights = weights_of(arm.weights, self.results)
            model = build(arm.backbone, of_arm(arm, known), classes=len(known.classes), seed=0)
            load_weights(arm.backbone, model, weights, self.results)


def _combinations(values: dict[str, tuple[bool | int | float | str, ...]]) -> Iterator[Params]:
    if math.prod(map(len, values.values())) <= MOST:
        yield from (dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))
    else:
        yield from ({name: value} for name, each in values.items() for value in each)
