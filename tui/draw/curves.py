"""Training curves of one or several runs, against steps, epochs, time, energy or FLOPs. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from suite.ranking.leaderboard import COLUMNS
from tui.draw.cells import duration
from tui.draw.chart import STYLES, Axis, Figure, Series
from tui.draw.figures import accuracy_axis, look_of
from tui.model.detail import Detail, Point
from tui.model.snapshot import Run

EFFORTS = ("epoch", "step", "seconds", "energy", "FLOPs")
TITLES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("validation accuracy", lambda v: f"{100 * v:.4g}%"),
    "loss": ("loss", lambda v: f"{v:.3g}"),
    "lr": ("learning rate", lambda v: f"{v:.3g}"),
    "speed": ("images/s", COLUMNS["speed"].text),
    "validation_loss": ("validation loss", lambda v: f"{v:.3g}"),
}  # of what is logged: the axis and the format; whatever else a `Detail` has curves of has its own name
QUANTITIES = (*TITLES, *(f.name for f in fields(Detail) if "Point" in str(f.type) and f.name not in TITLES))
TOGETHER = tuple(name for name in QUANTITIES if name != "validation_loss")  # where there is room; it is with the loss
TRAINING = ("loss", "speed")  # what training reports, and is smoothed
NOT_LOGGED = "Nothing logged yet: points come with the first evaluation. m shows another metric."
SMOOTHINGS = (0.0, 0.6, 0.9, 0.97)  # weights of the moving average
Place = Callable[[Point], float]  # from a point to its x value


def effort(run: Run, name: str) -> tuple[Place | None, Axis]:
    """The x value of a point, and the axis; None instead of the former if the run did not measure it.

    Energy and FLOPs are known for the whole training only. A point gets a share in proportion to its time or step.
    """
    cost = run.record.cost if run.record else None
    if name == "step":
        return (lambda p: float(p.step)), Axis("step", text=COLUMNS["flops"].text)
    if name == "seconds":
        return (lambda p: p.seconds), Axis("training time", text=duration, unit="seconds")
    if name == "energy":
        joules, total = (cost.energy_joules, cost.train_seconds) if cost else (None, 0.0)
        place = (lambda p: joules * p.seconds / total) if joules and total else None
        return place, Axis("energy, in proportion to time", text=COLUMNS["energy"].text)
    if name == "FLOPs":
        flops, steps = (cost.training_flops, run.record.steps) if cost and run.record else (0, 0)
        place = (lambda p: flops * p.step / steps) if flops and steps else None
        return place, Axis("training FLOPs, in proportion to steps", text=COLUMNS["train_flops"].text)
    return (lambda p: p.epoch), Axis("epoch")


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average with the bias correction of Adam (Kingma and Ba, 2014, arXiv:1412.6980)."""
    smoothed: list[float] = []
    mean = 0.0
    for i, value in enumerate(values, 1):
        mean = weight * mean + (1 - weight) * value
        smoothed.append(mean / (1 - weight**i))
    return smoothed


def _points(points: Sequence[Point], place: Place, weight: float = 0.0) -> list[tuple[float, float]]:
    values = smooth([p.value for p in points], weight) if weight else [p.value for p in points]
    return [(place(p), value) for p, value in zip(points, values)]


def _axis(quantity: str, series: Sequence[Series], linear: bool) -> tuple[Axis, tuple[str, ...]]:
    """The axis of a quantity, and notes on what it leaves out, which is never a whole curve.

    `linear` gives one that is not logarithmic.
    """
    values = [y for one in series for _, y in one.points]
    if quantity == "accuracy":
        return accuracy_axis(values, linear, [one.points[-1][1] for one in series if one.points])
    name, text = TITLES.get(quantity, (quantity.replace("_", " "), COLUMNS["flops"].text))
    wide = "loss" in quantity and bool(values) and min(values) > 0 and max(values) / min(values) > 20
    return Axis(name, log=wide and not linear, text=text), ()


def run_figure(run: Run, detail: Detail, quantity: str, against: str, weight: float, linear: bool = False) -> Figure:
    """One quantity of one run. Only what training reports is smoothed, not validation."""
    place, x = effort(run, against)
    if place is None:
        return Figure((), x, Axis(), empty=f"{against} was not measured, or is not known before the end. X goes on.")
    if quantity == "loss":
        series = []
        if weight:
            series.append(Series("", _points(detail.loss, place), "line", "dim"))
        name = f"training, smoothed {weight:g}" if weight else "training"
        series.append(Series(name, _points(detail.loss, place, weight), "line", STYLES[0]))
        validation = _points(detail.validation_loss, place)
        series.append(Series("validation", validation, "points", *look_of(1)))
    else:
        points: Sequence[Point] = getattr(detail, quantity)
        series = [Series("", _points(points, place, weight if quantity in TRAINING else 0.0), _kind(points))]
    y, notes = _axis(quantity, series, linear)
    return Figure(tuple(series), x, y, notes, NOT_LOGGED)


def overlay_figure(
    runs: Sequence[Run],
    details: Sequence[Detail],
    names: Sequence[str],
    quantity: str,
    against: str,
    weight: float,
    linear: bool = False,
) -> Figure:
    """One quantity of several runs on common axes, each with a glyph and a colour of its own (`look_of`)."""
    series: list[Series] = []
    notes: list[str] = []
    x = Axis()
    for i, (run, detail, name) in enumerate(zip(runs, details, names)):
        place, x = effort(run, against)
        if place is None:
            notes.append(f"{name}: {against} was not measured, or is not known before the end.")
            continue
        points: Sequence[Point] = getattr(detail, quantity)
        smoothing = weight if quantity in TRAINING else 0.0
        line = _points(points, place, smoothing)
        series.append(Series(name, line, _kind(points), *look_of(i), keys=[run.key] * len(line), marks="along"))
    y, below = _axis(quantity, series, linear)
    return Figure(tuple(series), x, y, (*notes, *below), NOT_LOGGED)


def _kind(points: Sequence[Point]):
    return "line" if len(points) > 1 else "points"
