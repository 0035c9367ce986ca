"""Training curves of one or several runs, against steps, epochs, time, energy or FLOPs. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from suite.ranking.leaderboard import COLUMNS
from tui.draw.cells import duration
from tui.draw.chart import STYLES, Axis, Series
from tui.draw.figures import Figure, percent
from tui.model.detail import Detail, Point
from tui.model.snapshot import Run

EFFORTS = ("epoch", "step", "seconds", "energy", "FLOPs")
QUANTITIES = ("accuracy", "loss", "lr", "speed")
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
        return (lambda p: p.seconds), Axis("training time", text=duration)
    if name == "energy":
        joules, total = (cost.energy_joules, cost.train_seconds) if cost else (None, 0.0)
        place = (lambda p: joules * p.seconds / total) if joules and total else None
        return place, Axis("energy, in proportion to time", text=COLUMNS["energy"].text)
    if name == "FLOPs":
        flops, steps = (cost.training_flops, run.record.steps) if cost and run.record else (0, 0)
        place = (lambda p: flops * p.step / steps) if flops and steps else None
        return place, Axis("training FLOPs, in proportion to steps", text=COLUMNS["train_flops"].text)
    return (lambda p: p.epoch), Axis("epoch", whole=False)


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


def _axis(quantity: str, values: Sequence[float]) -> Axis:
    if quantity == "accuracy":
        return Axis("validation accuracy", text=percent)
    if quantity == "speed":
        return Axis("images/s", text=COLUMNS["speed"].text)
    if quantity == "lr":
        return Axis("learning rate", text=lambda v: f"{v:.3g}")
    log = bool(values) and min(values) > 0 and max(values) / min(values) > 20
    return Axis("loss", log=log, text=lambda v: f"{v:.3g}")


def run_figure(run: Run, detail: Detail, quantity: str, against: str, weight: float) -> Figure:
    """One quantity of one run. Only what training reports is smoothed, not validation."""
    place, x = effort(run, against)
    if place is None:
        return Figure((), x, Axis(), (f"{against} was not measured, or is not known before the end.",))
    if quantity == "accuracy":
        series = [Series("", _points(detail.accuracy, place), _kind(detail.accuracy))]
    elif quantity == "loss":
        series = []
        if weight:
            series.append(Series("", _points(detail.loss, place), "line", "dim"))
        name = f"training, smoothed {weight:g}" if weight else "training"
        series.append(Series(name, _points(detail.loss, place, weight), "line", STYLES[0]))
        series.append(Series("validation", _points(detail.validation_loss, place), "points", STYLES[1]))
    else:
        series = [Series("", _points(getattr(detail, quantity), place, weight if quantity == "speed" else 0.0))]
    values = [y for one in series for _, y in one.points]
    return Figure(tuple(series), x, _axis(quantity, values))


def overlay_figure(
    runs: Sequence[Run], details: Sequence[Detail], names: Sequence[str], quantity: str, against: str, weight: float
) -> Figure:
    """One quantity of several runs on common axes."""
    series: list[Series] = []
    notes: list[str] = []
    x = Axis()
    for i, (run, detail, name) in enumerate(zip(runs, details, names)):
        place, x = effort(run, against)
        if place is None:
            notes.append(f"{name}: {against} was not measured, or is not known before the end.")
            continue
        points: Sequence[Point] = getattr(detail, quantity)
        smoothing = weight if quantity in ("loss", "speed") else 0.0
        series.append(Series(name, _points(points, place, smoothing), _kind(points), STYLES[i % 8]))
    values = [y for one in series for _, y in one.points]
    return Figure(tuple(series), x, _axis(quantity, values), tuple(notes))


def _kind(points: Sequence[Point]):
    return "line" if len(points) > 1 else "points"
