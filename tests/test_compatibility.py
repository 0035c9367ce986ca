"""A study that version 0.1.0 made (tests/fixtures/study-0.1) still opens, ranks, reports, exports and resumes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIXTURE = Path(__file__).parent / "fixtures" / "study-0.1"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
KEPT = ("trial", "arm", "state", "accuracy", "curve", "params", "trainable", "flops", "train_flops", "reason")

Command = Callable[..., Any]


@pytest.fixture
def results(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one of the two results directories to where the command line looks."""

    def copy(which: str) -> Path:
        return Path(shutil.copytree(FIXTURE / which, tmp_path / "results"))

    return copy


def facts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in KEPT} for row in rows]


@pytest.mark.parametrize("which", ["unfinished", "finished"])
def test_it_ranks_as_before(suite: Command, results: Callable[[str], Path], which: str) -> None:
    results(which)
    done = suite("leaderboard", "small", "--json")
    assert done.returncode == 0, done.stderr
    assert facts(json.loads(done.stdout)) == facts(EXPECTED[which]["leaderboard"])
    status = json.loads(suite("status", "--json").stdout)
    for before, now in zip(EXPECTED[which]["status"], status, strict=True):
        assert {key: now[key] for key in before} == before


@pytest.mark.slow
def test_nothing_is_wrong_with_it_and_it_reports(
    suite: Command, results: Callable[[str], Path], tmp_path: Path
) -> None:
    results("finished")
    assert suite("doctor", "small").returncode == 0
    done = suite("report", "small", "--to", "report.md")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report.md").read_text()
    assert "84.91" in text and "82.75" in text  # test accuracies of its final evaluation


@pytest.mark.slow
def test_its_best_model_exports_and_predicts_as_before(
    suite: Command, results: Callable[[str], Path], tmp_path: Path
) -> None:
    results("finished")
    done = suite("export", "small", "--to", "model", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["trial"], made["accuracy"]) == (
        EXPECTED["finished"]["export"]["trial"],
        EXPECTED["finished"]["export"]["accuracy"],
    )
    assert made["sha256"] == EXPECTED["finished"]["export"]["sha256"]
    for index, before in enumerate(EXPECTED["finished"]["predict"]):
        assert suite("data", "sample", "mnist", "--index", index, "--to", f"{index}.png").returncode == 0
        (answer,) = json.loads(suite("predict", "model", f"{index}.png", "--json").stdout)
        assert answer["label"] == before["label"]
        assert answer["probabilities"] == pytest.approx(before["probabilities"], abs=1e-5)


@pytest.mark.slow
def test_it_resumes_to_exactly_its_trials(suite: Command, results: Callable[[str], Path]) -> None:
    """What was recorded stays to the letter. The stopped trial continues from its checkpoint; new ones follow."""
    before = {row["trial"]: row for row in facts(EXPECTED["unfinished"]["leaderboard"])}
    results("unfinished")
    done = suite("sweep", "--study", "small", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["trial"]: row for row in facts(json.loads(done.stdout)["rows"])}
    assert len(rows) == 10
    wanted = {row["trial"]: row for row in facts(EXPECTED["resumed"]["leaderboard"])}
    for trial, row in before.items():
        assert rows[trial] == row if row["state"] != "stopped" else rows[trial]["state"] == wanted[trial]["state"]
        assert rows[trial]["accuracy"] == pytest.approx(wanted[trial]["accuracy"], abs=0.01)  # of 300 images


@pytest.mark.slow
def test_its_finalists_are_trained(suite: Command, results: Callable[[str], Path]) -> None:
    """The experiment that it began with knew no finalists."""
    results("finished")
    done = suite("sweep", "--study", "small", "--resume", "--finalists", 1, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert facts(found["rows"]) == facts(EXPECTED["finished"]["leaderboard"])
    assert all(one["fresh"]["n"] == 3 and one["finalists"]["trials"] in (3, 6) for one in found["found"])
    assert {row["trial"] for row in found["rows"] if row["best"]} == {one["winner"] for one in found["found"]}


@pytest.mark.slow
def test_a_final_evaluation_of_it_goes_on(suite: Command, results: Callable[[str], Path]) -> None:
    """Two seeds of which the first is there: one more training an arm, one more reading, the first figures kept."""
    results("finished")
    done = suite("evaluate", "small", "--final", "--top", 1, "--seeds", 2, "--json")
    assert done.returncode == 0, done.stderr
    found, wanted = json.loads(done.stdout), EXPECTED["finished"]["evaluation_with_two_seeds"]
    assert len(found["readings"]) == len(wanted["readings"]) == 2
    for before, now in zip(wanted["finalists"], found["finalists"], strict=True):
        assert (now["arm"], now["trial"], now["runs"]) == (before["arm"], before["trial"], before["runs"])
        assert now["accuracies"][0] == before["accuracies"][0]
        assert now["accuracies"] == pytest.approx(before["accuracies"], abs=0.01)
