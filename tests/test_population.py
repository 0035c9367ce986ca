"""Trainings stacked into one model: each ends where it would have ended alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from suite import backbones, data, heads
from suite.augment import Prepare, feature_preparer, image_preparer
from suite.backbones import Preprocess
from suite.population import Population, alike
from suite.spec import Augment, Evaluated, HeadSpec, Linear, Mlp, Progress, Recipe
from suite.train import Examples, Step, Training, begin, course, restore, state_numbers, state_tensors, take

CPU = torch.device("cpu")
EXPECTS = Preprocess(1, 28, (0.1307,), (0.3081,), "none")
Item = Step | Progress | Evaluated


@pytest.fixture(scope="module")
def sets() -> tuple[Examples, Examples]:
    splits = data.search_splits("mnist", limit=400)
    train, validation = (
        Examples(torch.from_numpy(p.images), torch.from_numpy(p.labels)) for p in (splits.train, splits.validation)
    )
    return train, validation


def as_features(part: Examples) -> Examples:
    return Examples(part.inputs.flatten(1).double() / 255, part.labels)


def in_double(prepare: Prepare) -> Prepare:
    return lambda images, generator: prepare(images, generator).double()


def member(
    number: int,
    sets: tuple[Examples, Examples],
    what: str | HeadSpec,
    recipe: Recipe,
    seed: int = 5,
    device: str = "cpu",
) -> tuple[Training, Iterator[Item]]:
    """A training with a rate and a momentum of its own.

    In double precision, where only rounding in the fifteenth digit tells a stack from its members alone: in single
    precision one changed winner of a max pool soon becomes another trajectory.
    """
    recipe = recipe.model_copy(update={"lr": recipe.lr * (1 + number), "momentum": 0.5 + 0.1 * number})
    prepare: Prepare = feature_preparer
    where = torch.device(device)
    sets = (
        Examples(sets[0].inputs.to(where), sets[0].labels.to(where)),
        Examples(sets[1].inputs.to(where), sets[1].labels.to(where)),
    )
    if isinstance(what, str):
        model = backbones.build(what, classes=10, channels=1, size=28, seed=seed)
        prepare = in_double(image_preparer(EXPECTS, recipe.augment, where))
    else:
        sets = (as_features(sets[0]), as_features(sets[1]))
        model = heads.make(what, sets[0].inputs, 10, seed)
    training = begin(model.double(), recipe, where, torch.float32)  # autocast off
    return training, course(training, *sets, recipe, prepare, seed=seed)


def run_alone(courses: list[Iterator[Item]]) -> None:
    for items in courses:
        for item in items:
            if isinstance(item, Step):
                take(item)


def run_together(courses: list[Iterator[Item]], join_late: list[Iterator[Item]] | None = None) -> None:
    """All at once; `join_late` enter after twelve steps of the others."""
    population, live, taken = Population(everywhere=True), list(courses), 0
    while live:
        steps: list[Step] = []
        for items in list(live):
            step = next((item for item in items if isinstance(item, Step)), None)
            if step is None:
                live.remove(items)
            else:
                steps.append(step)
        if steps:
            population.take(steps)
            assert all(step.seconds is not None and step.seconds > 0 for step in steps)
        taken += 1
        if join_late and taken == 12:
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
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("what", ["net", Linear(), Mlp(hidden=16)], ids=["net", "linear", "mlp"])
def test_every_member_ends_where_it_ends_alone(
    sets: tuple[Examples, Examples], what: str | HeadSpec, name: str
) -> None:
    recipe = RECIPES[name]
    if not isinstance(what, str) and recipe.augment:
        recipe = recipe.model_copy(update={"augment": Augment()})
    alone = [member(i, sets, what, recipe) for i in range(4)]
    together = [member(i, sets, what, recipe) for i in range(4)]
    run_alone([items for _, items in alone])
    run_together([items for _, items in together])
    for (a, _), (b, _) in zip(alone, together, strict=True):
        equal(a, b, tolerance=1e-8)
    weights = [next(t.model.parameters()) for t, _ in together]
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)  # they did go different ways


def test_members_may_come_late_have_seeds_of_their_own_and_leave_early(sets: tuple[Examples, Examples]) -> None:
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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_one_is_alone_before_and_after_the_others(sets: tuple[Examples, Examples], name: str, device: str) -> None:
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


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_member_is_saved_and_goes_on_alone(sets: tuple[Examples, Examples], name: str) -> None:
    recipe = RECIPES[name]
    through = [member(i, sets, "net", recipe) for i in range(3)]
    run_alone([items for _, items in through])

    first = [member(i, sets, "net", recipe) for i in range(3)]
    population, live = Population(everywhere=True), [items for _, items in first]
    for _ in range(7):
        population.take([next(item for item in items if isinstance(item, Step)) for items in live])
    for _, items in first:
        next(items)  # the seventh step is counted when the training goes on
    saved = [(state_tensors(t), state_numbers(t)) for t, _ in first]
    assert {numbers["tally"]["step"] for _, numbers in saved} == {7}

    for number, (tensors, numbers) in enumerate(saved):
        training, items = member(number, sets, "net", recipe)
        restore(training, tensors, numbers)
        run_alone([items])
        equal(through[number][0], training, tolerance=1e-8)


def test_what_cannot_be_stacked_says_so(sets: tuple[Examples, Examples]) -> None:
    plain, normed = (next(member(0, sets, name, RECIPES["sgd"])[1]) for name in ("net", "lean-l"))
    assert isinstance(plain, Step) and isinstance(normed, Step)
    assert alike(plain) is not None
    assert alike(normed) is None  # batch norm
    assert Population(everywhere=True).kind(plain) is not None
    assert Population(everywhere=False).kind(plain) is None  # convolutions, on a CPU
    head = next(member(0, sets, Linear(), RECIPES["sgd"])[1])
    assert isinstance(head, Step) and Population(everywhere=False).kind(head) is not None


@pytest.mark.gpu
@pytest.mark.parametrize("what", ["net", "cnn", Linear()], ids=["net", "cnn", "linear"])
def test_a_recorded_stack_ends_where_its_members_end_alone_on_the_cpu(
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
