"""The training loop: it learns, is deterministic on a CPU, and resumes bit for bit."""

import json
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suite.data.datasets import search_splits
from suite.hardware import device
from suite.models import backbones
from suite.spec import Augment, Evaluated, Preprocess, Progress, Recipe
from suite.spec.seeds import mix
from suite.training import loop
from suite.training.augment import feature_preparer, training_preparer
from suite.training.evaluation import Examples, Scores
from suite.training.loop import epoch_order, evaluation_points, fit, steps_per_epoch, training_loop
from suite.training.optimizer import learning_rate, set_rate
from suite.training.state import Diverged, Step, Tally, Training, begin, restore, state_numbers, state_tensors

CPU = torch.device("cpu")
EXPECTS = Preprocess(channels=1, size=28, stored=28, mean=(0.1307,), std=(0.3081,))


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


MIXED = Recipe(
    lr=0.02,
    epochs=3,
    batch_size=64,
    augment=Augment(crop=0.4, trivial=True, mixup=0.4, cutmix=1.0),
    label_smoothing=0.1,
    layer_decay=0.8,
    weight_decay=0.001,
    balance="sampler",
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


@pytest.fixture(scope="module")
def few(mnist: tuple[Examples, Examples]) -> tuple[Examples, Examples]:
    """Ten steps of 16 images an epoch."""
    train, validation = (Examples(part.inputs[:160], part.labels[:160]) for part in mnist)
    return train, validation


@pytest.fixture(
    scope="module", params=[RICH, Recipe(lr=0.05, nesterov=True, epochs=3), MIXED], ids=["rich", "plain", "mixed"]
)
def whole(request: pytest.FixtureRequest, few: tuple[Examples, Examples]) -> tuple[Recipe, Training]:
    """A training without a stop, to compare with."""
    recipe = request.param.model_copy(update={"batch_size": 16})
    run(training := new(recipe), few, recipe)
    assert training.tally.step == 30
    return recipe, training


@pytest.mark.parametrize("stop_after", [1, 7, 10, 19, 29])
def test_a_resumed_run_ends_with_the_same_weights(
    few: tuple[Examples, Examples],
    whole: tuple[Recipe, Training],
    stop_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("suite.training.loop.PROGRESS_SECONDS", 0.0)  # an event after every step, to stop at any
    recipe, through = whole
    first = new(recipe)
    for _ in fit(first, *few, recipe, training_preparer(EXPECTS, recipe.augment, CPU), seed=5):
        if first.tally.step >= stop_after:
            break
    tensors, numbers = state_tensors(first), state_numbers(first)
    torch.manual_seed(12345)  # another process would not share this one's generator
    second = new(recipe)
    restore(second, tensors, numbers)
    assert second.tally.step == first.tally.step
    run(second, few, recipe)
    for (name, a), b in zip(through.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert through.tally.curve == second.tally.curve
    assert through.best_state.keys() == second.best_state.keys()
    assert all(torch.equal(through.best_state[k], second.best_state[k]) for k in through.best_state)


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_the_scale_of_half_precision_is_resumed(mnist: tuple[Examples, Examples], clip_norm: float) -> None:
    recipe = Recipe(lr=0.02, epochs=2, batch_size=20, clip_norm=clip_norm)
    few = (Examples(mnist[0].inputs[:80], mnist[0].labels[:80]), Examples(mnist[1].inputs[:20], mnist[1].labels[:20]))

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


@pytest.mark.parametrize("balance", ["sampler", "loss"])
def test_uneven_classes_are_balanced(mnist: tuple[Examples, Examples], balance: Literal["sampler", "loss"]) -> None:
    """Few images of the ones among many: with balance the recall of ones is higher, in epochs of the same length."""
    train, validation = mnist
    ones = (train.labels == 1).nonzero().flatten()[:6]
    rows = torch.cat((ones, (train.labels == 7).nonzero().flatten(), (train.labels == 2).nonzero().flatten()))
    uneven = Examples(train.inputs[rows], train.labels[rows])
    judged = Examples(*(part[validation.labels == 1] for part in (validation.inputs, validation.labels)))
    recalls: list[float] = []
    for recipe in (plain := Recipe(lr=0.02, epochs=4, batch_size=16), plain.model_copy(update={"balance": balance})):
        events = run(training := new(recipe), (uneven, judged), recipe)
        assert training.tally.images == 4 * len(uneven)
        recalls.append(events[-1].accuracy if isinstance(events[-1], Evaluated) else 0.0)
    assert recalls[1] > recalls[0] + 0.3


def test_every_parameter_has_one_rate_that_rises_with_depth() -> None:
    """Each group's rate is the schedule's times its scale; the classifier has the schedule's."""
    recipe = Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1, layer_decay=0.5)
    training = new(recipe, "lean-s")
    names = {id(p): name for name, p in training.model.named_parameters()}
    rates: dict[str, float] = {}
    for group in training.optimizer.param_groups:
        set_rate(group, 0.004)
        for p in group["params"]:
            assert names[id(p)] not in rates
            rates[names[id(p)]] = group["lr"]
            assert group["weight_decay"] == (0.1 if p.ndim > 1 else 0.0)
    assert rates.keys() == set(names.values())
    first, *_, hidden, classifier = backbones.blocks(training.model)
    assert {rates[name] for name in classifier} == {0.004}
    assert {rates[name] for name in hidden} == {0.002}
    assert {rates[name] for name in first} == {min(rates.values())}


def test_a_rate_that_blows_up_is_called_diverged(mnist: tuple[Examples, Examples]) -> None:
    recipe = Recipe(lr=1e9, epochs=3)
    with pytest.raises(Diverged):
        run(new(recipe), mnist, recipe)


def test_evaluations_within_an_epoch_do_not_change_the_training(mnist: tuple[Examples, Examples]) -> None:
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
    assert steps == sorted(steps) and steps[0] >= 1 and steps[-1] == epochs * per_epoch
    assert [epoch for _, epoch in points] == sorted({epoch for _, epoch in points})
    assert {(e * per_epoch, float(e)) for e in range(1, epochs + 1)} <= set(points)


@settings(max_examples=60)
@given(
    size=st.integers(2, 40),
    batch_size=st.integers(2, 40),
    epochs=st.integers(1, 4),
    planned=st.lists(st.floats(0.02, 3), max_size=4, unique=True).map(sorted),
)
def test_every_check_is_evaluated_once_and_in_order(
    size: int, batch_size: int, epochs: int, planned: list[float]
) -> None:
    """On little data several checks fall onto one step: each of them gets an event of its own, so that it is judged."""
    recipe = Recipe(epochs=epochs, batch_size=min(batch_size, size))
    planned = [epoch for epoch in planned if epoch < epochs]
    few = Examples(torch.randn(size, 3), torch.arange(size) % 2)
    training = begin(nn.Linear(3, 2), recipe, CPU, torch.float32)
    events = [
        event
        for event in fit(training, few, few, recipe, feature_preparer, seed=0, checks=planned)
        if isinstance(event, Evaluated)
    ]
    assert [event.epoch for event in events if event.epoch in planned] == list(planned)
    assert [event.step for event in events] == sorted(event.step for event in events)


@pytest.mark.parametrize("epochs", [0.3, 1.0, 1.5])
def test_a_short_training_follows_the_whole_schedule(epochs: float) -> None:
    """Its rate comes down to the end, as it does over all epochs, and the last evaluation is at its end."""
    recipe = Recipe(epochs=3, batch_size=4, schedule="cosine", lr=0.1)
    few = Examples(torch.randn(40, 3), torch.arange(40) % 2)
    training = begin(nn.Linear(3, 2), recipe, CPU, torch.float32)
    items = list(training_loop(training, few, few, recipe, feature_preparer, seed=0, epochs=epochs))
    rates = [item.rate for item in items if isinstance(item, Step)]
    evaluated = [item.epoch for item in items if isinstance(item, Evaluated)]
    assert len(rates) == round(10 * epochs)
    assert rates[0] == pytest.approx(0.1) and rates[-1] < 0.03
    assert evaluated == sorted({*range(1, int(epochs) + 1), epochs})


def test_a_training_stopped_between_two_rungs_of_one_step_continues_with_the_second() -> None:
    """The rungs 0.1, 0.3 and 0.9 of two steps an epoch fall onto steps 1, 1 and 2, where epoch 1 ends as well."""
    recipe, checks = Recipe(epochs=1, batch_size=4), (0.1, 0.3, 0.9)
    few = Examples(torch.randn(8, 3), torch.arange(8) % 2)
    whole, first, second = (begin(nn.Linear(3, 2), recipe, CPU, torch.float32) for _ in range(3))
    first.model.load_state_dict(whole.model.state_dict())
    everything = list(fit(whole, few, few, recipe, feature_preparer, seed=0, checks=checks))
    for event in fit(first, few, few, recipe, feature_preparer, seed=0, checks=checks):
        if isinstance(event, Evaluated):
            break
    restore(second, state_tensors(first), json.loads(json.dumps(state_numbers(first))))
    rest = list(fit(second, few, few, recipe, feature_preparer, seed=0, checks=checks))
    evaluated = [(e.step, e.epoch, e.accuracy) for e in everything if isinstance(e, Evaluated)]
    assert [point[:2] for point in evaluated] == [(1, 0.1), (1, 0.3), (2, 0.9), (2, 1.0)]
    assert [(e.step, e.epoch, e.accuracy) for e in rest if isinstance(e, Evaluated)] == evaluated[1:]


class SimulatedDevice:
    """A clock and a device that works asynchronously: a step is queued at once and takes `seconds` of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.queued, self.seconds = 0.0, 0.0, seconds
        self.carry_out = loop.run_step
        monkeypatch.setattr(loop, "run_step", self.run_step)
        monkeypatch.setattr(device, "synchronize", self.synchronize)
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def run_step(self, step: Step) -> None:
        self.carry_out(step)
        self.now += 1e-6  # of the host, to queue it
        self.queued += self.seconds

    def synchronize(self, _: torch.device) -> None:
        self.now, self.queued = self.now + self.queued, 0.0


def test_seconds_of_training_include_the_work_that_the_device_has_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rate and every time that an event names is that of the device, not that of queueing its work."""
    monkeypatch.setattr("suite.training.loop.PROGRESS_SECONDS", 0.0)
    few = Examples(torch.randn(40, 3), torch.arange(40) % 2)
    recipe = Recipe(epochs=2, batch_size=10)
    training = begin(nn.Linear(3, 2), recipe, CPU, torch.float32)
    SimulatedDevice(monkeypatch, seconds=0.25)
    events = list(fit(training, few, few, recipe, feature_preparer, seed=0))
    reports = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in reports] == list(range(1, 9))
    assert [event.images_per_second for event in reports] == pytest.approx([40] * 8, rel=1e-3)
    for event in events:
        assert event.seconds == pytest.approx(0.25 * event.step, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_seconds_of_training_on_a_gpu_are_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that are quickly queued and take the GPU long: their time by CUDA events is within what is reported."""
    monkeypatch.setattr("suite.training.loop.PROGRESS_SECONDS", 0.0)
    monkeypatch.setenv("MNIST_SUITE_CUDA_GRAPHS", "0")
    gpu = torch.device("cuda")
    few = Examples(torch.randn(64, 4096, device=gpu), torch.arange(64, device=gpu) % 2)
    model = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(20)), nn.Linear(4096, 2)).to(gpu)
    recipe = Recipe(epochs=1, batch_size=16, lr=1e-6)
    training = begin(model, recipe, gpu, torch.float32)
    spent: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    carry_out = loop.run_step

    def timed(step: Step) -> None:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        carry_out(step)
        end.record()
        spent.append((start, end))

    monkeypatch.setattr(loop, "run_step", timed)
    events = list(fit(training, few, few, recipe, feature_preparer, seed=0))
    torch.cuda.synchronize()
    needed = sum(start.elapsed_time(end) for start, end in spent) / 1000
    assert isinstance(events[-1], Evaluated)
    assert events[-1].seconds >= 0.99 * needed


def test_an_evaluation_without_a_finite_loss_is_never_the_best() -> None:
    """The best evaluation before it stays, whatever its accuracy."""
    tally = Tally()
    assert tally.note(1.0, Scores(0.5, 0.7, torch.empty(0)))
    assert not tally.note(2.0, Scores(0.9, math.nan, torch.empty(0)))
    assert (tally.best_accuracy, tally.best_loss, tally.best_epoch) == (0.5, 0.7, 1.0)
    assert len(tally.curve) == 2


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
