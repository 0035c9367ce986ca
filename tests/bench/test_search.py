"""Searches replayed on recorded trainings, and the page of their figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from suite.bench.search_page import page
from suite.bench.search_replay import RULES, Replay, interval, replayed
from suite.bench.search_table import IMAGES, RECIPES, SIZES, points, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", RECIPES)
def test_the_table_has_the_default_first_and_accuracies_of_both_seeds(model: str) -> None:
    found = table(model)
    assert found.points[0] == points(model)[0] and len(set(found.points)) == len(found.points) >= 40
    assert {point.batch_size for point in found.points} <= set(SIZES)
    for number, trainings in enumerate(found.trainings):
        for training in trainings:
            assert len(training.curve) == 9 and max(training.curve) >= training.value >= 0.05
            assert math.isclose(training.value * IMAGES, round(training.value * IMAGES), abs_tol=1e-6)
        assert found.seconds(number, 1 / 9) == pytest.approx(found.seconds(number) / 9)
        assert found.nearest(found.points[number].params(), set()) == number


@pytest.mark.parametrize("name", RULES)
def test_a_replay_trains_the_default_and_counts_what_it_trains(name: str) -> None:
    replay = Replay(table("head"), 0, number=3)
    RULES[name](replay, 6, math.inf)
    assert replay.tried[0] == 0 and len(set(replay.tried)) == len(replay.tried) == 6
    whole = sum(replay.table.seconds(number) for number in replay.whole)
    assert whole <= replay.seconds <= sum(replay.table.seconds(number) for number in replay.tried) * 1.5
    gain, seconds = replay.outcome()
    assert -0.02 < gain < 0.02 and seconds == replay.seconds


def test_our_search_costs_a_part_of_one_without_pruning() -> None:
    """12 short trainings over a ninth, and two whole ones."""
    replay = Replay(table("lean-s"), 1, number=0)
    RULES["ours"](replay, 12, math.inf)
    assert len(replay.tried) == 12 and len(replay.whole) == 2
    short = sum(replay.table.seconds(number, 1 / 9) for number in replay.tried)
    assert replay.seconds == pytest.approx(short + sum(replay.table.seconds(number) for number in replay.whole))


def test_searches_at_equal_cost_stop_there() -> None:
    found = replayed("head", 12, 0)
    most = max(table("head").seconds(number) for number in range(len(table("head").points)))
    for name, outcome in found.items():
        if name.endswith("at equal cost"):
            assert outcome.seconds <= found["ours"].seconds + most


def test_the_published_page_is_that_of_its_figures() -> None:
    figures = json.loads((ROOT / "results" / "search.json").read_text())
    assert page(figures) == (ROOT / "results" / "search.md").read_text()


def test_an_interval_is_wider_where_several_are_read_together() -> None:
    assert interval([0.0, 2.0] * 50) == "95 % interval 0.801 to 1.199"
    assert interval([0.0, 2.0] * 50, 15) == "95 % interval 0.698 to 1.302"


def test_the_answer_says_where_ours_is_ahead_behind_and_neither() -> None:
    def figure(name: str, value: float, interval: str = "") -> dict[str, object]:
        return {
            "name": f"search.net.12.{name}",
            "value": value,
            "unit": "points",
            "how": f"95 % interval {interval}, x",
        }

    found = [figure("ours.gain", 0.08, "0.05 to 0.11"), figure("ours.cost", 0.25)]
    pairs = {
        "random-no-pruning": "0.01 to 0.03",
        "TPE-no-pruning": "-0.01 to 0.03",
        "TPE-MedianPruner": "-0.03 to -0.01",
    }
    for name, bounds in pairs.items():
        found += [
            figure(f"{name}.gain", 0.0, "0 to 1"),
            figure(f"{name}.cost", 1.0),
            figure(f"ours-less-{name}", 0.0, bounds),
        ]
    text = page({"machine": {"date": "today"}, "figures": found})
    assert "than 1 of 3 (net, 12 trials); it adds less than 1 (net, 12 trials). The other differences" in text
    assert "It takes 0.25 to 0.25 of the time" in text
