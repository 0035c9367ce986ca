from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from suite.ranking import gains
from suite.ranking import leaderboard as ranking_leaderboard
from suite.ranking.final import FinalEvaluation, Finalist, Reading
from suite.ranking.leaderboard import COLUMNS, COSTS
from suite.ranking.shift import Corrupted, FontAnswers, Level, Shift, write_shift
from suite.ranking.statistics import difference_interval, newcombe, sample, sample_of_shares, wilson
from suite.store.notes import NOTES_FILE, write_note
from suite.store.study import StudyDir, final_of
from tui.draw.aligned import shortened
from tui.draw.cells import cell, counted, sparkline
from tui.model import replay
from tui.model.board import ACTIVE, FOLDED, arrange, grouped, known_columns, order
from tui.model.feed import Watcher
from tui.model.filters import FilterError
from tui.model.snapshot import Run
from tui.model.view import DEFAULT_COLUMNS, TOPS, View
from tui.testing.synthetic import NOW, make_trial, write_study, write_trial


@pytest.fixture
def runs(results: Path) -> list[Run]:
    return Watcher(results, lambda: NOW).poll().runs


def test_order_and_front_are_those_of_the_command_line(runs: list[Run]) -> None:
    """The order and the Pareto front are those of `mnist-suite leaderboard`, for several columns."""
    for key in ("accuracy", "flops", "seconds", "energy", "params", "number"):
        cost = key if key in COSTS else "flops"
        expected = ranking_leaderboard.rank((run.row for run in runs), sort=key)
        board = arrange(runs, View(sort=key, cost=cost))
        assert [line.row.trial for line in board.lines if line.row.state == "finished"] == [
            row.trial for row in expected if row.state == "finished"
        ]
        assert {trial for _, trial in board.front} == {row.trial for row in expected if row.pareto}


def test_trials_at_work_come_first_and_unknown_values_last_in_both_directions(runs: list[Run]) -> None:
    for reverse in (False, True):
        rows = [line.row for line in arrange(runs, View(sort="energy", reverse=reverse, folded=False)).lines]
        groups = [row.state not in ACTIVE if row.state != "finished" else 1 for row in rows]
        assert groups == sorted(groups) and rows[0].state in ACTIVE
        states = [row.state != "finished" for row in rows if row.state not in ACTIVE]
        assert states == sorted(states)
    nan = runs[0].row._replace(energy=float("nan"))
    assert order(nan, "energy") > order(runs[0].row, "energy")


def test_pruned_and_paused_trials_are_counted_on_one_line_once_something_has_finished(runs: list[Run]) -> None:
    pruned = [run for run in runs if run.row.state == "pruned"]
    board = arrange(runs, View())
    assert pruned and board.folded == {"pruned": len(pruned), "paused": 1}
    assert not any(line.row.state in FOLDED for line in board.lines)
    assert counted(board.folded) == f"✂ {len(pruned)} pruned  ‖ 1 paused"
    for view in (View(folded=False), View(filter="arm:cnn state:pruned")):
        assert not arrange(runs, view).folded
    assert {line.key for line in arrange(runs, View(), pinned={pruned[0].key}).lines} >= {pruned[0].key}
    unfinished = [run for run in runs if run.row.state != "finished"]
    assert len(arrange(unfinished, View()).lines) == len(unfinished)


def test_the_gap_to_the_best_is_told_within_one_validation_set(tmp_path: Path) -> None:
    write_study(tmp_path, "a", ["finished"] * 3)
    other = make_trial("b", 0).model_copy(update={"data_hash": "other"})
    write_trial(write_study(tmp_path, "b", []), 0, "finished", trial=other)
    board = arrange(Watcher(tmp_path).poll().runs, View())
    gaps = {line.key: board.gap(line.row) for line in board.lines}
    best = max(line.row.accuracy or 0 for line in board.lines if line.key[0] == "a")
    assert gaps["b", other.id] == 0
    for line in board.lines:
        if line.key[0] == "a":
            assert gaps[line.key] == pytest.approx((line.row.accuracy or 0) - best)
    place = next(i for i, line in enumerate(board.lines) if line.key[0] == "b")
    assert cell(board.lines[place], "gap", place, board=board, view=View(), marked=(), pinned=()) == "best"


def test_narrow_cells_are_short_and_tell_names_apart(runs: list[Run]) -> None:
    board = arrange(runs, View())
    line = next(line for line in board.lines if line.row.state == "running")
    running = cell(line, "state", 0, board=board, view=View(), marked=(), pinned=(), narrow=True)
    assert running == "● 40% 30 s left"  # 200 of 500 steps in 20 s
    named = replace(line, row=line.row._replace(study="pretrain-cnn-mnist-1a523f"))
    short = cell(named, "study", 0, board=board, view=View(), marked=(), pinned=(), narrow=True)
    assert len(short) == 14 and short.startswith("pretrain"[:7]) and short.endswith("1a523f")


@given(st.text(max_size=30), st.integers(0, 20))
def test_a_shortened_text_fits(text: str, width: int) -> None:
    assert cell_len(shortened(text, width)) <= width
    assert shortened(text, 100) == text


def test_hyperparameters_are_sorted_as_numbers(runs: list[Run]) -> None:
    board = arrange(runs, View(sort="batch_size", filter="state:finished"))
    sizes = [line.row.tuned["batch_size"] for line in board.lines]
    assert sizes == sorted(sizes) and len(set(sizes)) > 1


def test_filter_counts_and_top(runs: list[Run]) -> None:
    board = arrange(runs, View(filter="state:finished", top=2))
    assert (len(board.lines), board.matched, board.total) == (2, 3, 10)
    with pytest.raises(FilterError):
        arrange(runs, View(filter="acc>"))


def test_pins_come_first_and_properties_can_be_filtered(runs: list[Run]) -> None:
    last = arrange(runs, View()).lines[-1].key  # a failed one
    board = arrange(runs, View(), pinned={last}, marked={last})
    assert board.lines[0].key == last
    assert [line.key for line in arrange(runs, View(filter="is:marked"), marked={last}).lines] == [last]
    front = arrange(runs, View()).front
    assert {line.key for line in arrange(runs, View(filter="is:pareto")).lines} == front != frozenset()
    assert len(arrange(runs, View(filter="is:best")).lines) == 1


def test_pareto_fronts_do_not_mix_validation_splits(tmp_path: Path) -> None:
    write_study(tmp_path, "a", ["finished"] * 3)
    study = write_study(tmp_path, "b", [])
    trial = make_trial("b", 7).model_copy(update={"data_hash": "other"})
    write_trial(study, 7, "finished", trial=trial)
    board = arrange(Watcher(tmp_path).poll().runs, View())
    assert board.splits == 2 and ("b", trial.id) in board.front and any(study == "a" for study, _ in board.front)


def test_fewer_training_labels_are_no_other_validation_set(runs: list[Run]) -> None:
    """Two arms are validated on the same images, whatever share of the labels they train on: one front."""
    done = next(run for run in runs if run.row.state == "finished")
    few = done.trial.model_copy(update={"fraction": 0.1, "split_hash": "other", "arm": "few"})
    worse = replace(
        done,
        key=("a", "few"),
        row=done.row._replace(trial="few", arm="few", accuracy=0.1, flops=10**12),
        trial=few,
    )
    board = arrange([done, worse], View())
    assert board.front == {done.key} and board.splits == 1


def test_seeds_are_grouped_as_mean_and_interval(tmp_path: Path) -> None:
    study = StudyDir(tmp_path, "seeds")
    write_study(tmp_path, "seeds", [])
    base = make_trial("seeds", 0)
    for number in range(3):
        write_trial(study, number, "finished", trial=base.model_copy(update={"number": number, "seed": number}))
    write_trial(study, 4, "finished")
    runs = Watcher(tmp_path, lambda: NOW).poll().runs
    lines = grouped(runs)
    merged = next(line for line in lines if len(line.runs) == 3)
    accuracies = [run.row.accuracy or 0 for run in merged.runs]
    assert merged.row.accuracy == pytest.approx(sum(accuracies) / 3)
    expected = sample(accuracies)
    assert (merged.row.low, merged.row.high) == (expected.low, expected.high)
    assert sorted(len(line.runs) for line in lines) == [1, 3]
    board = arrange(runs, View(grouped=True))
    place = board.place(merged.key)
    assert place is not None
    assert "±" in cell(merged, "accuracy", place, board=board, view=View(), marked=(), pinned=())


def shown(board, key: str, view: View | None = None) -> list[str]:
    """The texts of a column, from the top."""
    view = view or View()
    return [cell(line, key, i, board=board, view=view, marked=(), pinned=()) for i, line in enumerate(board.lines)]


def test_lines_that_cannot_be_told_from_the_best_are_flagged(runs: list[Run]) -> None:
    """Whatever the order is; the line above plays no part."""
    ranks = shown(arrange(runs, View()), "rank")
    assert ranks[0] == "-" and "1" in ranks and "~2" in ranks and ranks[-1] == "-"
    done = [run for run in runs if run.row.state == "finished"]
    accuracies = (0.99, 0.95, 0.949)  # the last one is as good as the second, and worse than the best
    rows = [
        run.row._replace(accuracy=a, low=wilson(a, 5000)[0], high=wilson(a, 5000)[1])
        for run, a in zip(done, accuracies)
    ]
    apart = [replace(run, row=row) for run, row in zip(done, rows)]
    for view in (View(), View(sort="flops"), View(reverse=True)):
        assert not any("~" in rank for rank in shown(arrange(apart, view), "rank", view))
    other = replace(apart[2], row=apart[2].row._replace(validation=("other", "", None)))
    assert not any("~" in rank for rank in shown(arrange([*apart[:2], other], View()), "rank"))
    near = replace(apart[2], row=apart[2].row._replace(accuracy=0.989, low=0.986, high=0.9915))
    assert shown(arrange([*apart[:2], near], View()), "rank") == ["1", "~2", "3"]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**5))
def test_a_tie_is_an_interval_of_the_difference_that_holds_zero(first: float, second: float, images: int) -> None:
    first, second = max(first, second), min(first, second)
    low, high = difference_interval(first, wilson(first, images), second, wilson(second, images))
    assert (low, high) == newcombe(first, second, images)
    assert low - 1e-9 <= first - second <= high + 1e-9
    assert (low <= 0) or wilson(first, images)[
        0
    ] > second  # what is told apart: the other figure is out of its interval


# --- what is known beside the trials ---------------------------------------------------------------------------------


def write_evaluation(study: StudyDir, trial: str, accuracies: Sequence[float] = (0.991, 0.993)) -> None:
    """The outcome of a final evaluation of one trial, as `evaluate --final` writes it."""
    reading = Reading(time=1.0, dataset="mnist", models=("0000-aaaaaaaa",), earlier_in_other_studies=0)
    one = Finalist(
        arm="cnn",
        trial=trial,
        params={},
        search_accuracy=0.99,
        represents_arm=True,
        runs=tuple(f"{i:04d}-aaaaaaaa" for i in range(len(accuracies))),
        seeds=tuple(range(len(accuracies))),
        images=10_000,
        accuracies=tuple(accuracies),
        test=sample(accuracies),
        validation=sample(accuracies),
        wilson=wilson(accuracies[0], 10_000),
        ece=sample((0.01,)),
    )
    found = FinalEvaluation(
        study=study.name, dataset="mnist", top=1, seeds=2, finalists=(one,), comparisons=(), readings=(reading,)
    )
    place = final_of(study).path
    place.mkdir(exist_ok=True)
    (place / "readings.jsonl").write_text(reading.model_dump_json() + "\n")
    (place / "evaluation.json").write_text(found.model_dump_json())


@pytest.mark.parametrize("accuracies", [(0.991, 0.993), (0.991,)])
def test_test_accuracies_show_up_with_their_interval(results: Path, accuracies: tuple[float, ...]) -> None:
    watcher, study = Watcher(results, lambda: NOW), StudyDir(results, "mnist")
    first = watcher.poll().runs[0]
    assert first.row.test is None and "test" not in View().fitted(1, arrange([first], View()).known(COLUMNS)).columns
    write_evaluation(study, first.row.trial, accuracies)
    runs = watcher.poll().runs
    row = runs[0].row
    interval = sample_of_shares(accuracies)
    low, high = (interval.low, interval.high) if len(accuracies) > 1 else wilson(accuracies[0], 10_000)
    assert (row.test, row.test_low, row.test_high) == (interval.mean, low, high)
    board = arrange(runs, View())
    assert f"{100 * interval.mean:.2f}% ±" in shown(board, "test")[board.place(runs[0].key) or 0]
    assert "test" in View().fitted(1, board.known(View().columns)).columns
    assert [line.key for line in arrange(runs, View(filter="test>.99")).lines] == [runs[0].key]
    assert rows_of_the_command_line(study)[row.trial] == row._replace(
        best=rows_of_the_command_line(study)[row.trial].best
    )
    (final_of(study).path / "evaluation.json").write_text("{")
    assert watcher.poll().runs[0].row.test is None


def rows_of_the_command_line(study: StudyDir) -> dict[str, ranking_leaderboard.Row]:
    return {row.trial: row for row in gains.board(study, now=NOW)}


def test_gains_are_over_the_default_recipe_of_the_arm(tmp_path: Path) -> None:
    study = write_study(tmp_path, "mnist", ["finished", "finished", "finished", "finished", "pruned", "running"])
    default = make_trial("mnist", 6).model_copy(update={"params": {}})  # of the arm "cnn", with its own values
    watcher = Watcher(tmp_path, lambda: NOW)
    assert all(run.row.gain is None for run in watcher.poll().runs)
    write_trial(study, 6, "finished", trial=default)
    rows = {run.row.number: run.row for run in watcher.poll().runs}
    base, other = rows[6], rows[3]
    assert base.gain == 0 and base.gain_low is None
    assert other.gain == pytest.approx((other.accuracy or 0) - (base.accuracy or 0))
    assert (other.gain_low, other.gain_high) == pytest.approx(newcombe(other.accuracy or 0, base.accuracy or 0, 5000))
    assert rows[1].gain is None, "another arm"
    texts = dict(
        zip(
            (n.row.number for n in arrange(watcher.poll().runs, View()).lines),
            shown(arrange(watcher.poll().runs, View()), "gain"),
        )
    )
    assert texts[6] == "default" and texts[1] == "-" and texts[3][0] in "+-" and "±" in texts[3]
    assert {number: row.gain for number, row in rows.items()} == {
        row.number: row.gain for row in rows_of_the_command_line(study).values()
    }


def test_notes_and_tags_are_columns_and_archived_trials_are_left_out(results: Path) -> None:
    watcher, study = Watcher(results, lambda: NOW), StudyDir(results, "mnist")
    first, second, *_ = watcher.poll().runs
    write_note(study, first.row.trial, text="loses colour", tag=("good", "later"))
    write_note(study, second.row.trial, archived=True)
    runs = watcher.poll().runs
    board = arrange(runs, View())
    assert "good later" in shown(board, "tags") and second.key not in board.keys and board.archived == 1
    for text, keys in {
        "tag:GOOD": [first.key],
        "note:colour": [first.key],
        "tag:goo": [],
        "is:archived": [second.key],
    }.items():
        assert [line.key for line in arrange(runs, View(filter=text)).lines] == keys, text
    assert first.key not in arrange(runs, View(filter="-tag:good")).keys
    write_note(study, archived=True)
    assert not arrange(watcher.poll().runs, View()).lines and watcher.poll().studies[0].note.archived
    (study.path / NOTES_FILE).unlink()
    assert len(arrange(watcher.poll().runs, View(folded=False)).lines) == len(runs)


def test_robustness_is_a_column_as_soon_as_it_is_measured(results: Path) -> None:
    watcher, study = Watcher(results, lambda: NOW), StudyDir(results, "mnist")
    first = watcher.poll().runs[0]
    assert first.row.shift is None and "shift" not in arrange(watcher.poll().runs, View()).known(COLUMNS)
    level = Level(level=10.0, right=70, lost=25, gained=5)
    found = Shift(
        trial=first.row.trial,
        arm=first.row.arm,
        dataset="mnist",
        part="validation",
        images=100,
        right=90,
        corruptions=(Corrupted(name="rotation", unit="degrees", levels=(level,)),),
        interval=(0.6, 0.8),
        fonts=(FontAnswers(name="Serif", wrong=("7",)),),
        classes=10,
    )
    write_shift(study, found.model_copy(update={"part": "test"}))
    assert watcher.poll().runs[0].row.shift is None
    write_shift(study, found)
    row = watcher.poll().runs[0].row
    assert (row.shift, row.fonts) == (pytest.approx(0.7), pytest.approx(0.9))
    assert {"shift", "fonts"} <= {*arrange(watcher.poll().runs, View()).known(COLUMNS)}
    assert rows_of_the_command_line(study)[row.trial].shift == row.shift


def test_a_pinned_line_above_the_trials_at_work_keeps_a_rank(runs: list[Run]) -> None:
    best = max((run for run in runs if run.row.state == "finished"), key=lambda run: run.row.accuracy or 0)
    board = arrange(runs, View(), pinned={best.key})
    assert board.active > 1 and board.lines[0].key == best.key
    assert cell(board.lines[0], "rank", 0, board=board, view=View(), marked=(), pinned={best.key}) == "1"


def test_every_known_column_has_a_text(runs: list[Run]) -> None:
    keys = known_columns(runs)
    assert {"flag", "curve", "power", "lr", "batch_size"} <= set(keys)
    board = arrange(runs, View())
    for i, line in enumerate(board.lines):
        for key in keys:
            assert isinstance(cell(line, key, i, board=board, view=View(), marked=(), pinned=()), str)
            arrange(runs, View(sort=key))


def test_a_view_survives_unknown_names() -> None:
    assert View.model_validate({"cost": "beauty", "columns": [], "new": 1}).sane() == View()


def test_sparkline() -> None:
    assert sparkline((0.0, 0.5, 1.0)) == "▁▅█" and sparkline(()) == "-" and sparkline((0.5,)) == "▄"


def test_replay_goes_from_nothing_to_the_present(runs: list[Run]) -> None:
    span = replay.span(runs)
    assert span is not None and replay.span([]) is None
    first, last = span
    assert all(run.row.state == "running" for run in replay.at(runs, first))
    assert [run.key for run in replay.at(runs, last)] == [run.key for run in runs if run.began]
    assert replay.at(runs, last)[0] is runs[0]
    counts = [
        sum(r.row.state == "finished" for r in replay.at(runs, first + i / 10 * (last - first))) for i in range(11)
    ]
    assert counts == sorted(counts) and counts[-1] == 3


def test_a_replay_starts_at_the_first_run_and_ends_live(runs: list[Run]) -> None:
    position = replay.Replay()
    assert position.runs(runs) is runs
    position.toggle()
    assert position.percent == 0 and len(position.runs(runs)) < len(runs)
    position.move(-5)
    assert position.percent == 0
    position.move(100)
    assert position.percent is None and position.runs(runs) is runs


def test_every_key_that_changes_the_view_can_be_undone() -> None:
    view = View()
    for _ in TOPS:
        view = view.next_top()
    for _ in COSTS:
        view = view.next_cost()
    assert view.next_cost().next_cost(-1) == view == View()
    assert "seeds" in view.toggled_grouping().columns and view.toggled_grouping().toggled_grouping() == view
    assert view.sorted_by_heading("accuracy").reverse and not view.sorted_by_heading("flops").reverse
    assert view.sorted_by_heading("rank") == view
    assert view.sorted_by_neighbour(1).sorted_by_neighbour(-1) == view
    assert view.fitted(2, ()).columns[:4] == (*DEFAULT_COLUMNS[:3], "study")
    assert "study" not in View(study="mnist").fitted(2, ()).columns


def test_default_columns_are_fitted_to_what_is_known() -> None:
    view = View(cost="seconds").fitted(1, {"flops", "tuned"})
    assert view.columns == ("flag", "rank", "number", "arm", "state", "accuracy", "gap", "seconds", "flops", "tuned")
    chosen = View(columns=("number", "energy"))
    assert chosen.fitted(3, ()) == chosen
