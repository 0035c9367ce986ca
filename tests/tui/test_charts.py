import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from suite.ranking.formats import count, size
from suite.store.study import StudyDir
from tui.draw.aligned import cut, left, right
from tui.draw.axes import WHOLE, Axis, Window, scale, ticks
from tui.draw.cells import duration
from tui.draw.chart import SHADES, Figure, Series, draw
from tui.draw.curves import overlay_figure, run_figure, smooth
from tui.draw.figures import (
    all_arms,
    edf_figure,
    history_figure,
    intermediate_figure,
    pareto_figure,
    percent,
    timeline_figure,
    tuned_keys,
)
from tui.draw.images import beside, confusion_heatmap, halfblocks, worst_digits
from tui.draw.importance import correlation_ratio, importance_lines, importances, ranks
from tui.draw.parameters import QUINTILES, contour_figure, pairs, parallel_figure, rank_figure, slice_figure
from tui.draw.selection import along, find, highlighted, neighbour, share_of, spots
from tui.draw.side_by_side import side_by_side
from tui.model.detail import Follower, Validation, Wrong
from tui.model.feed import Watcher
from tui.testing.synthetic import NOW, write_study

numbers = st.floats(allow_nan=True, allow_infinity=True)
points = st.lists(st.tuples(numbers, numbers), max_size=30)


def text(lines) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


@given(
    st.integers(-1, 90),
    st.integers(-1, 40),
    points,
    st.booleans(),
    st.sampled_from([Axis("y"), Axis("y", log=True), Axis("y", error=True), Axis("y", error=True, low=0.9)]),
    st.sampled_from(["line", "points", "steps", "band"]),
    st.sampled_from([WHOLE, Window(0.25, 0.5), Window(0.9, 1.0)]),
)
def test_any_numbers_fit_any_size(width, height, values, log_x, y, kind, window) -> None:
    series = Series("some name", values, kind, keys=[("study", str(i)) for i in range(len(values))], marks="along")
    figure = Figure((series,), Axis("x", log=log_x), y)
    cursor = next((spot for group in spots(figure, window) for spot in group), None)
    lines = text(draw(width, height, figure, window=window, cursor=cursor))
    assert len(lines) == (max(0, height) if width >= 1 else 0)
    assert all(len(line) <= width for line in lines)


def test_a_straight_line() -> None:
    lines = text(draw(10, 4, Figure((Series("", [(0, 0), (1, 1)]),), Axis(), Axis())))
    assert lines[0].rstrip()[-1] != " " and lines[-1].lstrip() != "" and lines[0].startswith(" ")


def test_logarithmic_ticks_are_round() -> None:
    axis = Axis(log=True)
    found = scale([1e3, 1e8], axis)
    assert found is not None
    assert [value for value, _ in ticks(found, axis, 6)] == [1e3, 1e4, 1e5, 1e6, 1e7, 1e8]
    assert scale([0.0, -1.0], axis) is None


@pytest.mark.parametrize(
    ("axis", "values", "labels"),
    [
        (Axis(error=True, text=percent), [0.9, 0.9931], ["90%", "95%", "98%", "99%"]),
        (Axis(error=True, text=percent), [0.9912, 0.9931], ["99.15%", "99.2%", "99.25%", "99.3%"]),
        (Axis(log=True, text=duration, unit="seconds"), [20.0, 9000.0], ["60 s", "5 min", "20 min", "1.0 h"]),
        (Axis(text=duration, unit="seconds"), [0.0, 900.0], ["0 s", "5 min", "10 min", "15 min"]),
        (
            Axis(log=True, text=size, unit="bytes"),
            [3e7, 1.5e9],
            ["32 MiB", "64 MiB", "128 MiB", "256 MiB", "512 MiB", "1 GiB"],
        ),
        (Axis(log=True, text=count), [8.5e6, 4e7], ["10M", "20M", "30M", "40M"]),
        (Axis(text=count), [0.0, 9.0], ["0", "2", "4", "6", "8"]),
    ],
    ids=["errors", "few errors", "log time", "time", "bytes", "less than a decade", "linear"],
)
def test_ticks_are_round_on_every_axis(axis: Axis, values: list[float], labels: list[str]) -> None:
    found = scale(values, axis)
    assert found is not None
    assert [label for _, label in ticks(found, axis, 5)] == labels


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 20))
def test_ticks_lie_inside_and_are_few(low: float, span: float, count: int) -> None:
    axis = Axis()
    found = scale([low, low + span], axis)
    assert found is not None
    values = [value for value, _ in ticks(found, axis, count)]
    assert len(values) <= count + 2
    step = (found.high - found.low) * 1e-6 + 1e-9 * abs(low)
    assert all(found.low - step <= value <= found.high + step for value in values)


def test_eight_curves_of_a_thousand_points_are_quick() -> None:
    series = [Series(str(i), [(float(x), math.sin(x / 50 + i)) for x in range(1000)]) for i in range(8)]
    begin = time.perf_counter()
    draw(160, 45, Figure(tuple(series), Axis(), Axis()))
    assert time.perf_counter() - begin < 0.25  # 10 ms on an idle machine


def test_smoothing_is_unbiased_at_the_start() -> None:
    assert smooth([2.0, 2.0, 2.0], 0.9) == pytest.approx([2.0, 2.0, 2.0])


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(results: Path):
    return Watcher(results, lambda: NOW).poll().runs


def test_every_figure_can_be_drawn_of_none_one_and_all_runs(runs) -> None:
    for some in ([], runs[:1], runs):
        for figure in (
            pareto_figure(some, "flops"),
            pareto_figure(some, "latency"),
            history_figure(some),
            intermediate_figure(some),
            slice_figure(some, "lr"),
            slice_figure(some, "nothing"),
            parallel_figure(some),
            edf_figure(some),
            rank_figure(some, next(iter(pairs(some)), None)),
            contour_figure(some, next(iter(pairs(some)), None)),
            timeline_figure(some, NOW),
        ):
            lines = text(draw(80, 20, figure))
            if not any(one.points for one in figure.series):
                assert "".join(lines).strip().endswith(".")  # says what to do
        assert importance_lines(some, 80)


def test_notes_tell_the_cost_of_a_step_along_the_front(runs) -> None:
    notes = pareto_figure(runs, "flops").notes
    assert len(notes) == 1 and "pp for" in notes[0] and "x the FLOPs/img" in notes[0]


def test_accuracies_near_one_are_drawn_by_the_logarithm_of_their_error() -> None:
    axis = Axis(error=True, text=percent)
    found = scale([0.9, 0.99, 0.999, 1.0], axis)
    assert found is not None
    places = [found.place(value) for value in (0.9, 0.99, 0.999)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])  # type: ignore[operator]
    marks = [label for _, label in ticks(found, axis, 6)]
    assert {"90%", "99%", "99.9%"} <= set(marks)


def test_a_few_bad_trials_do_not_press_the_others_into_one_row(runs) -> None:
    done = next(run for run in runs if run.row.state == "finished")
    accuracies = [0.1, 0.2, *(0.985 + 0.0005 * i for i in range(18))]
    many = [
        replace(done, key=("a", str(i)), row=done.row._replace(trial=str(i), number=i, accuracy=accuracy))
        for i, accuracy in enumerate(accuracies)
    ]
    figure = history_figure(many)
    assert figure.y.error and figure.notes == ("2 below 98.5% not shown; L shows all",)
    rows = [i for i, line in enumerate(text(draw(60, 24, figure))) if "●" in line[6:]]
    assert max(rows) - min(rows) > 12
    linear = history_figure(many, linear=True)
    assert not linear.y.error and not linear.notes
    dear = [replace(run, row=run.row._replace(flops=10**9 + i)) for i, run in enumerate(many)]
    cheap = [replace(dear[0], row=dear[0].row._replace(flops=1)), *dear[1:]]
    assert pareto_figure(cheap, "flops").y.low == pytest.approx(0.1)  # what is on the front stays


def test_an_arm_keeps_its_glyph_and_colour_whatever_is_filtered(runs) -> None:
    done = next(run for run in runs if run.row.state == "finished")
    arms = [f"arm-{i:02d}" for i in range(12)]
    many = [
        replace(done, key=("a", arm), row=done.row._replace(trial=arm, number=i, arm=arm)) for i, arm in enumerate(arms)
    ]
    whole = {one.name: (one.style, one.glyph) for one in history_figure(many, arms=all_arms(many)).series[1:]}
    assert len(set(whole.values())) == len(arms)
    few = history_figure(many[5:7], arms=all_arms(many)).series[1:]
    assert {one.name: (one.style, one.glyph) for one in few} == {arm: whole[arm] for arm in arms[5:7]}


def test_best_so_far_never_decreases(runs) -> None:
    best = [y for _, y in history_figure(runs).series[0].points]
    assert best == sorted(best)


def test_the_hyperparameter_that_accuracy_depends_on_is_the_most_important(tmp_path: Path) -> None:
    from dataclasses import replace

    write_study(tmp_path, "s", ["finished"] * 30, epochs=1)
    runs = Watcher(tmp_path).poll().runs
    made = [
        replace(r, row=r.row._replace(tuned={"a": i, "b": (i * 7) % 11, "c": "xy"[i % 2]}, accuracy=0.5 + i / 100))
        for i, r in enumerate(runs)
    ]
    found = importances(made)
    assert found[0].key == "a" and found[0].strength == pytest.approx(1) and found[0].rising
    assert {one.key for one in found} == set(tuned_keys(made)) == {"a", "b", "c"}


def test_ranks_and_correlation_ratio() -> None:
    assert ranks([3.0, 1.0, 3.0]) == [2.5, 1.0, 2.5]
    assert correlation_ratio(["a", "a", "b"], [1.0, 1.0, 5.0]) == pytest.approx(1)
    assert correlation_ratio(["a", "b"], [1.0, 1.0]) == 0


def test_edf_rank_and_contour_show_the_good_region(runs) -> None:
    done = next(run for run in runs if run.row.state == "finished")
    made = [
        replace(
            done,
            key=("s", f"{a}{b}"),
            row=done.row._replace(study="s", trial=f"{a}{b}", accuracy=(a + b) / 20, tuned={"a": a, "b": b, "c": "x"}),
        )
        for a in range(8)
        for b in range(8)
    ]
    edf = edf_figure(made).series[0]
    assert edf.points[-1] == (0.7, 1.0) and [y for _, y in edf.points] == sorted(y for _, y in edf.points)
    assert pairs(made)[0] in (("a", "b"), ("b", "a"))  # and not the constant one
    ranked = rank_figure(made, ("a", "b"))
    assert [one.glyph for one in ranked.series] == list(QUINTILES)
    assert ("s", "77") in ranked.series[-1].keys and ("s", "00") in ranked.series[0].keys
    shades = text(draw(60, 24, contour_figure(made, ("a", "b"))))
    assert shades[2].rstrip()[-1] == SHADES[-1] and SHADES[-1] not in shades[-5]


def test_seeds_are_a_mean_in_a_band(runs) -> None:
    done = next(run for run in runs if run.row.state == "finished")
    seeds = [
        replace(done, key=("s", str(i)), record=None, row=done.row._replace(trial=str(i), curve=curve, epochs=(1, 2)))
        for i, curve in enumerate([(0.1, 0.2), (0.3, 0.4), (0.2, 0.9)])
    ]
    band, line = intermediate_figure(seeds, grouped=True).series
    assert band.kind == "band" and list(band.points) == [(1, 0.1), (1, 0.3), (2, 0.2), (2, 0.9)]
    assert [y for _, y in line.points] == pytest.approx([0.2, 0.5])
    assert len(intermediate_figure(seeds).series) == 3


def test_every_curve_of_a_comparison_can_be_told_without_colour(results: Path) -> None:
    runs = [run for run in Watcher(results, lambda: NOW).poll().runs if run.row.curve]
    details = [Follower(StudyDir(results, run.key[0]).trial(run.key[1])).poll() for run in runs]
    figure = overlay_figure(runs, details, [run.key[1] for run in runs], "accuracy", "step", 0.0)
    assert len({one.glyph for one in figure.series}) == len(figure.series) == len(runs)
    lines = "".join(text(draw(200, 40, figure, legend=False)))
    assert all(one.glyph in lines for one in figure.series)
    assert run_figure(runs[0], details[0], "validation_loss", "epoch", 0.0).series[0].points


# --- cursor ---------------------------------------------------------------------------------------------------------


def test_arrows_reach_every_point_and_stop_at_the_ends(runs) -> None:
    for figure in (history_figure(runs), slice_figure(runs, "lr"), edf_figure(runs), timeline_figure(runs, NOW)):
        groups = spots(figure)
        every = {spot.key for group in groups for spot in group}
        for dx, dy in ((1, 0), (0, 1)):
            at, seen = neighbour(groups, None, 0, 0), set()
            for step in [(-dx, -dy)] * 50 + [(dx, dy)] * 50:
                at = neighbour(groups, at, *step)
                seen.add(at.key)
            assert seen == every and len(every) > 2
    assert neighbour([], None, 1, 0) is None


def test_on_curves_arrows_go_along_and_across(runs) -> None:
    figure = intermediate_figure(runs)
    groups = spots(figure)
    top = neighbour(groups, None, 0, 0)
    before = neighbour(groups, top, -1, 0)
    assert before.key == top.key and before.x < top.x
    below = neighbour(groups, before, 0, -1)
    assert below.key != top.key and below.x == before.x
    assert find(figure, top.key, before.x) == before and find(figure, ("no", "run"), None) is None
    assert highlighted(figure, top.key).series[-1].style == "strong"
    assert 0 < share_of(figure, before.x) < share_of(figure, top.x) <= 1


def test_the_crosshair_of_a_run_goes_from_end_to_end() -> None:
    figure = Figure((Series("", [(float(i), 0.5) for i in range(1000)]),), Axis(), Axis())
    at, steps = along(figure, None, 1, 80), 0
    assert at == 0
    while at < 999:
        after = along(figure, at, 1, 80)
        assert after > at
        at, steps = after, steps + 1
    assert steps <= 80 and along(figure, 999.0, -1, 80) < 999
    assert along(Figure((), Axis(), Axis()), None, 1, 80) is None


@given(st.lists(st.sampled_from([0.5, 2.0, -0.25, 0.25])), st.floats(0, 1))
def test_a_window_stays_inside_and_opens_again(steps: list[float], at: float) -> None:
    window = WHOLE
    for step in steps:
        window = window.panned(step) if abs(step) == 0.25 else window.zoomed(step, at)
        assert -1e-9 <= window.low < window.high <= 1 + 1e-9
    for _ in range(8):
        window = window.zoomed(2)
    assert (window.low, window.high) == pytest.approx((0, 1))


def test_zooming_shows_a_part_and_fits_the_other_axis_to_it() -> None:
    figure = Figure((Series("", [(float(x), 1000.0 if x == 99 else float(x)) for x in range(100)]),), Axis(), Axis())
    assert "1000" in "".join(text(draw(60, 20, figure)))
    part = "".join(text(draw(60, 20, figure, window=Window(0.0, 0.25))))
    assert "1000" not in part and "20" in part


@given(st.lists(st.lists(st.text(max_size=40), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(20, 200))
def test_every_compared_run_can_be_reached(values: list[list[str]], width: int) -> None:
    rows = [("", ["run0", "run1", "run2", "run3"]), *(("a setting of a long name", row) for row in values)]
    seen: list[int] = []
    begin = 0
    while begin < 4:
        lines, shown = side_by_side(rows, begin, width)
        assert shown >= 1 and (shown == 1 or all(cell_len(line) <= width for line in lines))
        seen += [i for i in range(4) if f"run{i}" in lines[0]]
        begin += shown
    assert seen == [0, 1, 2, 3]


# --- images ---------------------------------------------------------------------------------------------------------


def test_half_blocks_hold_two_pixels() -> None:
    lines = halfblocks([[0, 255], [255, 0], [10, 300]])
    assert [line.plain for line in lines] == ["▀▀", "▀▀"]
    style = lines[0].spans[0].style
    assert str(style) == "#000000 on #ffffff"


def test_misclassified_digits_and_confusion_fit_the_width(results: Path) -> None:
    from tui.model.detail import read_validation

    path = next(results.glob("mnist/trials/*/validation.json"))
    validation = read_validation(path)
    assert validation is not None
    for width in (30, 60, 200):
        assert all(line.cell_len <= max(width, 50) for line in worst_digits(validation, width))
        assert len(confusion_heatmap(validation, width)) == 11
    assert beside([], 10) == []


WIDE = ("猫", "犬と猫", "bird", "🦅", "cafe\u0301")  # two cells a character, and a character of none


@given(st.text(), st.integers(0, 30))
def test_text_is_padded_and_cut_in_cells(text: str, width: int) -> None:
    assert cell_len(left(text, width)) == cell_len(right(text, width)) == width
    assert cell_len(cut(text, width)) <= width
    if cell_len(text) <= width:
        assert right(text, width).endswith(text) and cut(text, width) == text


@pytest.mark.parametrize("width", [24, 40, 120])
def test_columns_of_wide_class_names_meet(width: int) -> None:
    counts = tuple(tuple(10 * i + j for j in range(len(WIDE))) for i in range(len(WIDE)))
    wrong = Wrong(7, 0, 1, 0.9, ((0,) * 28,) * 28)
    validation = Validation(WIDE, counts, (wrong,) * 3)
    heading, *rows = confusion_heatmap(validation, width)
    assert {line.cell_len - cell_len(line.plain.rpartition("  ")[2]) for line in rows} == {
        heading.cell_len - len(" right")
    }
    assert len({line.cell_len for line in worst_digits(validation, 100) if line.plain}) == 1


@given(st.integers(1, 60), st.integers(1, 20))
def test_charts_with_wide_names_stay_inside(width: int, height: int) -> None:
    series = [Series(name, [(float(i), 1.0)], "points") for i, name in enumerate(WIDE)]
    axis = Axis("犬の種類", labels=tuple((float(i), name) for i, name in enumerate(WIDE)), low=-0.5, high=4.5)
    figure = Figure(tuple(series), axis, Axis("正解率", labels=((1.0, "犬と猫"),)))
    lines = text(draw(width, height, figure))
    assert all(cell_len(line) <= width for line in lines)
