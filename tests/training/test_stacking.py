"""Stacked trainings: each member ends with the weights that it ends with when trained alone."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

from suite.data.datasets import search_splits
from suite.hardware.memory import ran_out
from suite.models import backbones, heads, strategies
from suite.spec import (
    Augment,
    Bitfit,
    Evaluated,
    HeadSpec,
    Linear,
    Lora,
    Mlp,
    Partial,
    Preprocess,
    Progress,
    Recipe,
    Strategy,
)
from suite.training.augment import Prepare, feature_preparer, training_preparer
from suite.training.evaluation import Examples
from suite.training.loop import run_step, training_loop
from suite.training.stacking import Population, Stack, stack_key
from suite.training.state import Step, Training, begin, restore, state_numbers, state_tensors

MIB = 2**20
EXPECTS = Preprocess(channels=1, size=28, stored=28, mean=(0.1307,), std=(0.3081,))
Item = Step | Progress | Evaluated


@cache
def slices(limit: int = 400) -> tuple[Examples, Examples]:
    splits = search_splits("mnist", limit=limit)
    train, validation = (
        Examples(torch.from_numpy(p.images), torch.from_numpy(p.labels)) for p in (splits.train, splits.validation)
    )
    return train, validation


@pytest.fixture(scope="module")
def sets() -> tuple[Examples, Examples]:
    """Five steps of 32 images an epoch."""
    return slices(160)


def as_features(part: Examples) -> Examples:
    return Examples(part.inputs.flatten(1).double() / 255, part.labels)


def in_double(prepare: Prepare) -> Prepare:
    return lambda images, generator=None: prepare(images, generator).double()


def heavy(seed: int) -> nn.Module:
    """A model of which nearly all is one layer, not the first, of 12 MiB in float64."""
    torch.manual_seed(seed)
    convolutions = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*convolutions, nn.Linear(8 * 28 * 28, 256), nn.ReLU(), nn.Linear(256, 10))


def member(
    number: int,
    sets: tuple[Examples, Examples],
    what: str | HeadSpec,
    recipe: Recipe,
    seed: int = 5,
    device: str = "cpu",
    strategy: Strategy | None = None,
) -> tuple[Training, Iterator[Item]]:
    """A training with its own learning rate and momentum, which depend on `number`.

    In float64, where a stack differs from separate trainings only by rounding in the fifteenth digit. In float32 a
    rounding error that changes the maximum in a max pool soon leads to another trajectory.
    """
    recipe = recipe.model_copy(update={"lr": recipe.lr * (1 + number), "momentum": 0.5 + 0.1 * number})
    prepare: Prepare = feature_preparer
    where = torch.device(device)
    sets = (
        Examples(sets[0].inputs.to(where), sets[0].labels.to(where)),
        Examples(sets[1].inputs.to(where), sets[1].labels.to(where)),
    )
    if isinstance(what, str):
        model = heavy(seed) if what == "heavy" else backbones.build(what, classes=10, channels=1, size=28, seed=seed)
        prepare = in_double(training_preparer(EXPECTS, recipe.augment, where))
    else:
        sets = (as_features(sets[0]), as_features(sets[1]))
        model = heads.make(what, sets[0].inputs, 10, seed)
    if strategy is not None:
        strategies.freeze(strategy, model)
    training = begin(model.double(), recipe, where, torch.float32)  # autocast off
    return training, training_loop(training, *sets, recipe, prepare, seed=seed)


def run_alone(courses: list[Iterator[Item]]) -> None:
    for items in courses:
        for item in items:
            if isinstance(item, Step):
                run_step(item)


def run_together(
    courses: list[Iterator[Item]],
    join_late: list[Iterator[Item]] | None = None,
    population: Population | None = None,
) -> None:
    """Train all as one population; `join_late` join after four steps of the others."""
    population, live, taken = population or Population(everywhere=True), list(courses), 0
    while live:
        steps: list[Step] = []
        for items in list(live):
            step = next((item for item in items if isinstance(item, Step)), None)
            if step is None:
                live.remove(items)
            else:
                steps.append(step)
        if steps:
            assert population.run_steps(steps) == {}
            assert all(step.seconds is not None and step.seconds > 0 for step in steps)
        taken += 1
        if join_late and taken == 4:
            live, join_late = live + join_late, None


def equal(one: Training, other: Training, tolerance: float) -> None:
    assert [e for e, _ in one.tally.curve] == [e for e, _ in other.tally.curve]
    assert (one.tally.step, one.tally.images) == (other.tally.step, other.tally.images)
    for (name, a), b in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=tolerance, rtol=1e-3), f"{name} differs by {(a - b).abs().max()}"


RECIPES: dict[str, Recipe] = {
    "sgd": Recipe(lr=0.02, epochs=2, batch_size=32),
    "nesterov": Recipe(lr=0.01, epochs=2, batch_size=32, nesterov=True, weight_decay=1e-3, schedule="onecycle"),
    "adamw": Recipe(optimizer="adamw", lr=0.001, epochs=2, batch_size=32, weight_decay=0.05, schedule="cosine"),
    "rich": Recipe(
        lr=0.01, epochs=2, batch_size=32, label_smoothing=0.1, clip_norm=0.5, ema=0.9, augment=Augment(shift=2.0)
    ),
    "mixed": Recipe(
        lr=0.01,
        epochs=2,
        batch_size=32,
        label_smoothing=0.1,
        weight_decay=1e-3,
        augment=Augment(crop=0.5, mixup=0.4, cutmix=1.0),
        layer_decay=0.7,
        balance="loss",
    ),
    "sampled": Recipe(
        optimizer="adamw",
        lr=0.001,
        epochs=2,
        batch_size=32,
        layer_decay=0.7,
        augment=Augment(mixup=1.0),
        balance="sampler",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "name"),
    [("net", "nesterov"), ("net", "rich"), *product((Linear(), Mlp(hidden=16)), RECIPES)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_every_member_ends_with_the_weights_of_training_alone(
    sets: tuple[Examples, Examples], what: str | HeadSpec, name: str
) -> None:
    recipe = RECIPES[name]
    if not isinstance(what, str) and recipe.augment:
        recipe = recipe.model_copy(update={"augment": Augment()})
    alone = [member(i, sets, what, recipe) for i in range(3)]
    together = [member(i, sets, what, recipe) for i in range(3)]
    run_alone([items for _, items in alone])
    run_together([items for _, items in together])
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)
    weights = [next(t.model.parameters()) for t, _ in together]
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)  # the members were trained differently


@pytest.mark.parametrize("name", ["mixed", "sampled"])
@pytest.mark.parametrize("seeds", [(5, 6, 7), (5, 5, 5)], ids=["different", "equal"])
def test_members_mix_their_own_images(sets: tuple[Examples, Examples], name: str, seeds: tuple[int, ...]) -> None:
    recipe = RECIPES[name].model_copy(update={"epochs": 1})
    alone, together = ([member(i, sets, "net", recipe, seed) for i, seed in enumerate(seeds)] for _ in range(2))
    run_alone([items for _, items in alone])
    population = StackSizes()
    run_together([items for _, items in together], population=population)
    assert population.made == [3]
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)


@pytest.mark.parametrize("strategy", [Partial(blocks=1), Bitfit(), Lora(rank=4)], ids=lambda s: s.kind)
@pytest.mark.parametrize("seeds", [(5, 6, 7), (5, 5, 5)], ids=["different", "equal"])
def test_frozen_parameters_are_each_members_own(
    sets: tuple[Examples, Examples], strategy: Strategy, seeds: tuple[int, ...]
) -> None:
    """Members with different frozen weights are stacked, and each trains on its own as it does alone."""
    recipe = RECIPES["sgd"].model_copy(update={"epochs": 1})
    alone, together = (
        [member(i, sets, "net", recipe, seed, strategy=strategy) for i, seed in enumerate(seeds)] for _ in range(2)
    )
    run_alone([items for _, items in alone])
    population = StackSizes()
    run_together([items for _, items in together], population=population)
    assert population.made == [3]
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)


@pytest.mark.slow
def test_members_may_join_late_have_different_seeds_and_leave_early(sets: tuple[Examples, Examples]) -> None:
    short, long = RECIPES["sgd"].model_copy(update={"epochs": 1}), RECIPES["sgd"]
    plans = [(0, long, 1), (1, short, 2), (2, long, 3)]
    late = [(3, short, 4), (4, long, 1)]

    def made(of: list[tuple[int, Recipe, int]]) -> list[tuple[Training, Iterator[Item]]]:
        return [member(n, sets, "net", recipe, seed) for n, recipe, seed in of]

    alone, together, entering = made(plans + late), made(plans), made(late)
    run_alone([items for _, items in alone])
    run_together([items for _, items in together], [items for _, items in entering])
    for (a, _), (b, _) in zip(alone, together + entering, strict=True):
        equal(a, b, tolerance=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_member_trains_alone_before_and_after_another(
    sets: tuple[Examples, Examples], name: str, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    long = RECIPES[name]
    short = long.model_copy(update={"epochs": 1})
    alone = [member(0, sets, "net", long), member(1, sets, "net", short)]
    first, second = member(0, sets, "net", long, device=device), member(1, sets, "net", short, device=device)
    run_alone([items for _, items in alone])
    run_together([first[1]], [second[1]])
    for (a, _), (b, _) in zip(alone, (first, second), strict=True):
        b.model.cpu()
        equal(a, b, tolerance=1e-8 if device == "cpu" else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_saved_member_continues_alone(sets: tuple[Examples, Examples], name: str) -> None:
    recipe = RECIPES[name]
    through = [member(i, sets, "net", recipe) for i in range(3)]
    run_alone([items for _, items in through])

    first = [member(i, sets, "net", recipe) for i in range(3)]
    population, live = Population(everywhere=True), [items for _, items in first]
    for _ in range(7):
        assert not population.run_steps([next(item for item in items if isinstance(item, Step)) for items in live])
    for _, items in first:
        next(items)  # the seventh step is counted when the training goes on
    saved = [(state_tensors(t), state_numbers(t)) for t, _ in first]
    assert {numbers["tally"]["step"] for _, numbers in saved} == {7}

    for number, (tensors, numbers) in enumerate(saved):
        training, items = member(number, sets, "net", recipe)
        restore(training, tensors, numbers)
        run_alone([items])
        equal(through[number][0], training, tolerance=1e-8)


def test_stack_keys_tell_what_can_be_stacked(sets: tuple[Examples, Examples]) -> None:
    plain, normed = (next(member(0, sets, name, RECIPES["sgd"])[1]) for name in ("net", "lean-l"))
    assert isinstance(plain, Step) and isinstance(normed, Step)
    assert stack_key(plain) is not None
    assert stack_key(normed) is None  # batch norm
    assert Population(everywhere=True).kind(plain) is not None
    assert Population(everywhere=False).kind(plain) is None  # convolutions, on a CPU
    head = next(member(0, sets, Linear(), RECIPES["sgd"])[1])
    assert isinstance(head, Step) and Population(everywhere=False).kind(head) is not None


# --- out of memory ---


class StackSizes(Population):
    """Records the sizes of the stacks that it made or tried to make."""

    def __init__(self) -> None:
        super().__init__(everywhere=True)
        self.made: list[int] = []

    def _stack(self, members: list[Training], present: set[Training], graphed: bool) -> Stack:
        if not any(stack.members == members for stack in self._stacks):
            self.made.append(len(members))
        return super()._stack(members, present, graphed)


@contextmanager
def at_most(room: int) -> Iterator[None]:
    """Limit this process to `room` bytes more than it has now."""
    held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) << 10
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (held + room, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def short_of_memory_for_activations() -> None:
    recipe = RECIPES["sgd"].model_copy(update={"batch_size": 128, "epochs": 1})
    alone, together = ([member(i, slices(), "net", recipe) for i in range(5)] for _ in range(2))
    run_alone([items for _, items in alone])
    population = StackSizes()
    with at_most(64 * MIB):
        run_together([items for _, items in together], population=population)
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)
    assert population.made == [5, 2, 2]  # each once; the fifth trains alone


def short_of_memory_for_gathering(name: str, room: int, made: list[int]) -> None:
    """Three steps of trainings whose memory is nearly all parameters and moments, so that building the stack fails."""
    recipe = RECIPES[name].model_copy(update={"batch_size": 4})
    alone, together = ([member(i, slices(), "heavy", recipe) for i in range(5)] for _ in range(2))
    for _, items in alone:
        for _ in range(3):
            run_step(next(item for item in items if isinstance(item, Step)))
    population = StackSizes()
    with at_most(room):
        for _ in range(3):
            assert not population.run_steps([next(i for i in items if isinstance(i, Step)) for _, items in together])
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)
    assert population.made == made


def short_of_memory_for_gathering_parameters() -> None:
    short_of_memory_for_gathering("sgd", 107 * MIB, [5, 2, 2])


def short_of_memory_for_gathering_moments() -> None:
    """With moments for all, even two do not fit."""
    short_of_memory_for_gathering("adamw", 168 * MIB, [5, 2, 2])


def two_that_do_not_fit_at_all() -> None:
    recipe = RECIPES["sgd"].model_copy(update={"epochs": 1})
    alone, together = ([member(i, slices(), "net", recipe) for i in range(3)] for _ in range(2))
    greedy = [member(i, slices(), "net", recipe.model_copy(update={"batch_size": 400})) for i in range(2)]
    run_alone([items for _, items in alone])
    population = StackSizes()
    live = [items for _, items in together]
    steps = [next(i for i in items if isinstance(i, Step)) for items in [*live, *(items for _, items in greedy)]]
    with at_most(64 * MIB):
        failures = population.run_steps(steps)
        run_together(live, population=population)
    assert set(failures) == {training for training, _ in greedy}
    assert all(ran_out(failure) and failure.__traceback__ is None for failure in failures.values())
    assert failures[greedy[0][0]] is not failures[greedy[1][0]]
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)
    assert population.made == [3, 2]  # the greedy two were tried as a stack; the other stack was kept


CASES: list[Callable[[], None]] = [
    short_of_memory_for_activations,
    short_of_memory_for_gathering_parameters,
    short_of_memory_for_gathering_moments,
    two_that_do_not_fit_at_all,
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the process's data as Linux does")
def test_short_memory_makes_smaller_stacks_with_the_same_weights() -> None:
    """In separate processes whose C library returns freed memory at once, so that their size is what they use.

    They are forks of one that has done nothing but import.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("what", ["net", "cnn", Linear()], ids=["net", "cnn", "linear"])
def test_a_graphed_stack_on_the_gpu_equals_its_members_alone_on_the_cpu(
    sets: tuple[Examples, Examples], what: str | HeadSpec
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    alone = [member(i, sets, what, RECIPES["sgd"]) for i in range(4)]
    together = [member(i, sets, what, RECIPES["sgd"], device="cuda") for i in range(4)]
    run_alone([items for _, items in alone])
    run_together([items for _, items in together])
    for (a, _), (b, _) in zip(alone, together, strict=True):
        b.model.cpu()
        equal(a, b, tolerance=1e-6)


@pytest.mark.gpu
def test_a_stack_too_large_for_the_gpu_continues_as_smaller_ones(sets: tuple[Examples, Examples]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    recipe = RECIPES["sgd"].model_copy(update={"batch_size": 128})

    def peak(count: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run_together([member(i, sets, "cnn", recipe, device="cuda")[1] for i in range(count)])
        return torch.cuda.max_memory_reserved()

    alone = [member(i, sets, "cnn", recipe) for i in range(5)]
    run_alone([items for _, items in alone])
    peak(1)  # memory that libraries allocate once and keep
    limit = (peak(1) + peak(5)) / 2
    gc.collect()
    torch.cuda.empty_cache()
    together = [member(i, sets, "cnn", recipe, device="cuda") for i in range(5)]
    population = StackSizes()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        run_together([items for _, items in together], population=population)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert population.made in ([5, 2, 2], [5, 2, 2, 2])  # or no room for two at once
    for (a, _), (b, _) in zip(alone, together, strict=True):
        b.model.cpu()
        equal(a, b, tolerance=1e-6)


def fork_for_each() -> int:
    """Run each of the cases in a fork of this process; returns how many failed."""
    import torch._dynamo  # noqa: F401  # as the first optimizer does, which would be in each fork

    slices()
    failed = 0
    for case in CASES:
        pid = os.fork()
        if pid == 0:
            try:
                case()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            failed += 1
            sys.stderr.write(f"{case.__name__} ended with {code}\n")
    return failed


if __name__ == "__main__":
    sys.exit(fork_for_each())
