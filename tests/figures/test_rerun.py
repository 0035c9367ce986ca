"""A trial repeated: identical where nothing has changed, and told apart where something has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.errors import InputError
from suite.rerun import rerun, surroundings
from suite.store import StudyDir, write_model
from suite.sweep import Stop


def test_finished_and_pruned_trials_come_out_the_same(small: Any) -> None:
    states = small.study.states()
    chosen = {(s.state, s.trial.arm): s for s in states if s.state in ("finished", "pruned")}
    assert {"finished", "pruned"} == {state for state, _ in chosen}
    for state in chosen.values():
        answer = rerun(small.results, f"small/{state.id}", stop=Stop())
        assert answer["identical"], answer
        assert answer["differs"] == {}


def test_what_differs_is_named_and_the_exit_code_says_so(small: Any, tmp_path: Path, suite: Callable[..., Any]) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    state = next(s for s in study.states() if s.state == "finished" and s.trial.strategy.kind == "head")
    assert state.record is not None
    other = state.record.model_copy(update={"artifact_sha256": "0" * 64})
    write_model(study.trial(state.id).path / "result.json", other)
    answer = suite("rerun", f"small/{state.trial.number}")
    assert answer.returncode == 1
    assert "NOT identical" in answer.stdout
    assert f"artifact_sha256 was {'0' * 64}" in answer.stdout


def test_what_has_changed_around_it_is_named(small: Any) -> None:
    made = small.study.states()[0].record.provenance
    newer = made.model_copy(update={"packages": {**made.packages, "torch": "9.9"}, "host": "elsewhere"})
    assert surroundings(made, newer) == {"packages.torch": (made.packages["torch"], "9.9")}
    assert surroundings(None, newer) == {}


def test_only_what_has_ended_can_be_compared(small: Any) -> None:
    with pytest.raises(InputError, match="no trial"):
        rerun(small.results, "small/9999", stop=Stop())
