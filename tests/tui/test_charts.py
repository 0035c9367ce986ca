import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.draw.aligned import cut, left, right
from tui.draw.chart import Axis, Series, draw, scale, thin, ticks
from tui.draw.curves import smooth
from tui.draw.figures import (
    all_arms,
    correlation_ratio,
    history_figure,
    importance_lines,
    importances,
    intermediate_figure,
    parallel_figure,
    pareto_figure,
    percent,
    ranks,
    slice_figure,
    timeline_figure,
    tuned_keys,
)
from tui.draw.images import beside, confusion_heatmap, halfblocks, worst_digits
from tui.model.detail import Validation, Wrong
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
    st.sampled_from(["line", "points", "steps"]),
)
def test_any_numbers_fit_any_size(width, height, values, log_x, y, kind) -> None:
    series = [Series("some name", values, kind)]
    lines = text(draw(width, height, series, Axis("x", log=log_x), y))
    assert len(lines) == (max(0, height) if width >= 1 else 0)
    assert all(len(line) <= width for line in lines)


def test_a_straight_line() -> None:
    lines = text(draw(10, 4, [Series("", [(0, 0), (1, 1)])], Axis(), Axis()))
    assert lines[0].rstrip()[-1] != " " and lines[-1].lstrip() != "" and lines[0].startswith(" ")


def test_logarithmic_ticks_are_round() -> None:
    axis = Axis(log=True)
    found = scale([1e3, 1e8], axis)
    assert found is not None
    assert [value for value, _ in ticks(found, axis, 6)] == [1e3, 1e4, 1e5, 1e6, 1e7, 1e8]
    assert scale([0.0, -1.0], axis) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 20))
def test_ticks_lie_inside_and_are_few(low: float, span: float, count: int) -> None:
    axis = Axis()
    found = scale([low, low + span], axis)
    assert found is not None
    values = [value for value, _ in ticks(found, axis, count)]
    assert len(values) <= count + 2
    step = (found.high - found.low) * 1e-6 + 1e-9 * abs(low)
    assert all(found.low - step <= value <= found.high + step for value in values)


def test_thinning_keeps_ends_and_extremes() -> None:
    curve = [(float(i), math.sin(i)) for i in range(10_000)]
    kept = thin(curve, 80)
    assert len(kept) <= 320 and kept[0] == curve[0] and kept[-1] == curve[-1]
    assert max(kept, key=lambda p: p[1]) == max(curve, key=lambda p: p[1])


def test_eight_curves_of_a_thousand_points_are_quick() -> None:
    series = [Series(str(i), [(float(x), math.sin(x / 50 + i)) for x in range(1000)]) for i in range(8)]
    begin = time.perf_counter()
    draw(160, 45, series, Axis(), Axis())
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
            timeline_figure(some, NOW),
        ):
            draw(80, 20, figure.series, figure.x, figure.y)
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
    rows = [i for i, line in enumerate(text(draw(60, 24, figure.series, figure.x, figure.y))) if "●" in line]
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
    lines = text(draw(width, height, series, axis, Axis("正解率", labels=((1.0, "犬と猫"),))))
    assert all(cell_len(line) <= width for line in lines)
