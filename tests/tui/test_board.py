from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from suite.ranking import leaderboard as ranking_leaderboard
from suite.ranking.leaderboard import COSTS
from suite.ranking.statistics import sample
from suite.store.study import StudyDir
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
    assert running.startswith("●") and "running" not in running
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


def test_overlapping_intervals_are_flagged(runs: list[Run]) -> None:
    board = arrange(runs, View())
    texts = [
        cell(line, "rank", i, board=board, view=View(), marked=(), pinned=()) for i, line in enumerate(board.lines)
    ]
    assert texts[0] == "-" and "1" in texts and "~2" in texts and texts[-1] == "-"


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
