"""The training loop: it learns, repeats itself bit for bit, and goes on where it stopped."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from suite.data.datasets import search_splits
from suite.models import backbones
from suite.models.preprocessing import Preprocess
from suite.spec import Augment, Evaluated, Progress, Recipe
from suite.spec.seeds import mix
from suite.training.augment import feature_preparer, training_preparer
from suite.training.evaluation import Examples
from suite.training.loop import epoch_order, evaluation_points, fit, steps_per_epoch
from suite.training.optimizer import learning_rate
from suite.training.state import Diverged, Training, begin, restore, state_numbers, state_tensors

CPU = torch.device("cpu")
EXPECTS = Preprocess(1, 28, (0.1307,), (0.3081,), "none")


@pytest.fixture(scope="module")
def mnist() -> tuple[Examples, Examples]:
    splits = search_splits("mnist", limit=600)
    train, validation = splits.train, splits.validation
    return (
        Examples(torch.from_numpy(train.images), torch.from_numpy(train.labels)),
        Examples(torch.from_numpy(validation.images), torch.from_numpy(validation.labels)),
    )


def new(recipe: Recipe, backbone: str = "net") -> Training:
    return begin(backbones.build(backbone, classes=10, channels=1, size=28, seed=0), recipe, CPU, torch.float32)


RICH = Recipe(
    optimizer="adamw",
    lr=0.002,
    schedule="onecycle",
    epochs=3,
    batch_size=64,
    augment=Augment(shift=2.0, rotate=10.0, scale=0.1, erase=0.3),
    label_smoothing=0.1,
    ema=0.9,
    clip_norm=1.0,
    weight_decay=0.01,
)


def run(training: Training, sets: tuple[Examples, Examples], recipe: Recipe) -> list[Progress | Evaluated]:
    return list(fit(training, *sets, recipe, training_preparer(EXPECTS, recipe.augment, CPU), seed=5))


def test_it_learns_real_digits(mnist: tuple[Examples, Examples]) -> None:
    recipe = Recipe(lr=0.05, epochs=6, batch_size=32)
    events = run(training := new(recipe), mnist, recipe)
    accuracies = [e.accuracy for e in events if isinstance(e, Evaluated)]
    assert len(accuracies) == 6
    assert max(accuracies) > 0.8
    assert training.tally.best_accuracy == max(accuracies)
    assert training.tally.images == 6 * 600


def test_a_sequential_cpu_run_repeats_bit_for_bit(mnist: tuple[Examples, Examples]) -> None:
    trainings = [new(RICH), new(RICH)]
    for training in trainings:
        run(training, mnist, RICH)
    for a, b in zip(*(t.model.state_dict().values() for t in trainings), strict=True):
        assert torch.equal(a, b)
    assert trainings[0].tally.curve == trainings[1].tally.curve


@pytest.mark.parametrize("recipe", [RICH, Recipe(lr=0.05, momentum=0.9, nesterov=True, epochs=3, batch_size=64)])
@pytest.mark.parametrize("stop_after", [1, 7, 10, 19, 29])
def test_a_resumed_run_ends_with_the_same_weights(
    mnist: tuple[Examples, Examples], recipe: Recipe, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "suite.training.loop.PROGRESS_SECONDS", 0.0
    )  # speak after every step, so any step can be the last
    whole = new(recipe)
    run(whole, mnist, recipe)
    first = new(recipe)
    for _ in fit(first, *mnist, recipe, training_preparer(EXPECTS, recipe.augment, CPU), seed=5):
        if first.tally.step >= stop_after:
            break
    tensors, numbers = state_tensors(first), state_numbers(first)
    torch.manual_seed(12345)  # another process would not share this one's generator
    second = new(recipe)
    restore(second, tensors, numbers)
    assert second.tally.step == first.tally.step
    run(second, mnist, recipe)
    for (name, a), b in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.tally.curve == second.tally.curve
    assert whole.best_state.keys() == second.best_state.keys()
    assert all(torch.equal(whole.best_state[k], second.best_state[k]) for k in whole.best_state)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_the_scale_of_half_precision_is_resumed(mnist: tuple[Examples, Examples], clip_norm: float) -> None:
    recipe = Recipe(lr=0.02, epochs=2, batch_size=50, clip_norm=clip_norm)
    few = (Examples(mnist[0].inputs[:200], mnist[0].labels[:200]), Examples(mnist[1].inputs[:50], mnist[1].labels[:50]))

    def half() -> Training:
        model = backbones.build("net", classes=10, channels=1, size=28, seed=0)
        made = begin(model, recipe, CPU, torch.float16)
        made.scaler.set_growth_interval(3)  # so that it changes, and stands between two changes
        return made

    whole, first, second = half(), half(), half()
    run(whole, few, recipe)
    for event in fit(first, *few, recipe, training_preparer(EXPECTS, recipe.augment, CPU), seed=5):
        if isinstance(event, Evaluated):
            break
    saved = state_numbers(first)
    assert saved["scaler"]["scale"] != half().scaler.state_dict()["scale"]
    assert saved["scaler"]["_growth_tracker"] > 0
    restore(second, state_tensors(first), json.loads(json.dumps(saved)))
    run(second, few, recipe)
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_rate_that_blows_up_is_called_diverged(mnist: tuple[Examples, Examples]) -> None:
    recipe = Recipe(lr=1e9, epochs=3)
    with pytest.raises(Diverged):
        run(new(recipe), mnist, recipe)


def test_checks_within_an_epoch_look_and_change_nothing(mnist: tuple[Examples, Examples]) -> None:
    recipe = Recipe(epochs=2, batch_size=64, lr=0.05)
    plain, looked = new(recipe), new(recipe)
    prepare = training_preparer(EXPECTS, recipe.augment, CPU)
    run(plain, mnist, recipe)
    events = list(fit(looked, *mnist, recipe, prepare, seed=5, checks=(0.25, 0.75, 1.5, 7.0)))
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    assert [e.epoch for e in evaluated] == [0.25, 0.75, 1.0, 1.5, 2.0]
    per_epoch = steps_per_epoch(len(mnist[0]), 64)
    assert [e.step for e in evaluated] == [round(e.epoch * per_epoch) for e in evaluated]
    for a, b in zip(plain.model.parameters(), looked.model.parameters(), strict=True):
        assert torch.equal(a, b)


@given(st.integers(1, 6), st.integers(1, 500), st.lists(st.floats(0.001, 8), max_size=5))
def test_evaluation_points_end_every_epoch_and_go_forward(epochs: int, per_epoch: int, checks: list[float]) -> None:
    points = evaluation_points(epochs, per_epoch, checks)
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps)) and steps[0] >= 1 and steps[-1] == epochs * per_epoch
    assert {(e * per_epoch, float(e)) for e in range(1, epochs + 1)} <= set(points)


def test_a_last_batch_of_one_is_left_out() -> None:
    assert steps_per_epoch(129, 64) == 2
    assert steps_per_epoch(130, 64) == 3
    assert steps_per_epoch(128, 64) == 2
    x, y = torch.randn(65, 4), torch.randint(0, 2, (65,))
    sets = Examples(x, y)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    recipe = Recipe(epochs=2, batch_size=64)
    events = list(fit(begin(model, recipe, CPU, torch.float32), sets, sets, recipe, feature_preparer, seed=0))
    assert isinstance(events[-1], Evaluated)


@given(n=st.integers(1, 500), epoch=st.integers(0, 50), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_sees_every_image_once(n: int, epoch: int, seed: int) -> None:
    order = epoch_order(seed, epoch, n, CPU)
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, epoch_order(seed, epoch, n, CPU))


@given(
    total=st.integers(1, 5000),
    schedule=st.sampled_from(["constant", "cosine", "onecycle"]),
    warmup=st.floats(0, 0.99),
)
def test_rates_stay_between_zero_and_the_peak(total: int, schedule: str, warmup: float) -> None:
    recipe = Recipe.model_validate({"lr": 0.5, "schedule": schedule, "warmup": warmup})
    rates = [learning_rate(recipe, step, total) for step in range(total)]
    assert all(0 < rate <= 0.5 * (1 + 1e-9) for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=50, unique=True))
def test_mixed_seeds_do_not_collide(pairs: list[tuple[int, int]]) -> None:
    assert len({mix(*pair) for pair in pairs}) == len(pairs)
    assert all(0 <= mix(*pair) < 2**63 for pair in pairs)


def test_the_tutorials_loop_gives_the_same_weights(mnist: tuple[Examples, Examples]) -> None:
    """Against a plain PyTorch loop over the same order: SGD 0.01, momentum 0.9, batch 64."""
    recipe = Recipe(epochs=1)
    ours = new(recipe, "cnn")
    plain = backbones.build("cnn", classes=10, channels=1, size=28, seed=0)
    run(ours, mnist, recipe)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    images, labels = mnist[0].inputs, mnist[0].labels
    for rows in epoch_order(5, 0, len(labels), CPU).split(64):
        inputs = (images[rows].float() / 255 - 0.1307) / 0.3081
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels[rows]).backward()
        optimizer.step()
    for a, b in zip(ours.model.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def spread(prepare: Callable[..., torch.Tensor], images: torch.Tensor) -> float:
    """How far apart two identical images come out of one batch."""
    twice = images[:1].repeat(2, 1, 1, 1)
    out = prepare(twice, torch.Generator().manual_seed(3))
    return (out[0] - out[1]).abs().max().item()


@pytest.mark.parametrize(
    "augment", [Augment(shift=3.0), Augment(rotate=20.0), Augment(scale=0.3), Augment(erase=1.0), Augment(flip=True)]
)
def test_augmentation_draws_for_every_image(mnist: tuple[Examples, Examples], augment: Augment) -> None:
    images = mnist[0].inputs[:32]
    prepare = training_preparer(EXPECTS, augment, CPU)
    generator = torch.Generator().manual_seed(0)
    changed = prepare(images, generator)
    plain = prepare(images)
    assert changed.shape == plain.shape == (32, 1, 28, 28)
    assert not torch.equal(changed, plain)
    if not augment.flip:
        assert spread(prepare, images) > 0
    again = prepare(images, torch.Generator().manual_seed(0))
    assert torch.equal(changed, again)


def test_evaluation_input_is_the_tutorials(mnist: tuple[Examples, Examples]) -> None:
    images = mnist[0].inputs[:8]
    out = training_preparer(EXPECTS, Augment(shift=4.0), CPU)(images)
    torch.testing.assert_close(out, (images.float() / 255 - 0.1307) / 0.3081)
    assert math.isclose(out.min().item(), -0.1307 / 0.3081, rel_tol=1e-4)
