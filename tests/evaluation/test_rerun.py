"""A trial repeated: identical where nothing has changed, and told apart where something has."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.errors import InputError
from suite.evaluation.rerun import rerun, surroundings
from suite.execution.stop import Stop
from suite.store.files import write_model
from suite.store.study import StudyDir, final_of


def test_every_record_says_what_made_it(small: Any) -> None:
    file = small.study.study()
    commands = {small.study: "the search", final_of(small.study): "the evaluation"}
    for study, command in commands.items():
        for state in study.states():
            made = state.record.provenance
            assert made.command == command
            assert made.version == file.version
            assert made.commit or not (Path(__file__).parents[2] / ".git").exists()
            assert made.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
            assert made.hardware and made.host and made.python and made.threads
            assert (made.data_sha256, made.split_sha256) == (file.data_hash, file.split_hash)
            if state.trial.arm == "net-head":
                weights = small.results / state.trial.weights.source
                assert made.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
            if state.record.artifact is not None:
                artifact = study.trial(state.id).path / state.record.artifact
                assert state.record.artifact_sha256 == hashlib.sha256(artifact.read_bytes()).hexdigest()


def test_finished_and_pruned_trials_come_out_the_same(small: Any) -> None:
    states = small.study.states()
    chosen = {(s.state, s.trial.arm): s for s in states if s.state in ("finished", "pruned")}
    assert {"finished", "pruned"} == {state for state, _ in chosen}
    for state in chosen.values():
        answer = rerun(small.results, f"small/{state.id}", stop=Stop())
        assert answer["identical"], answer
        assert answer["differs"] == {}


@pytest.mark.slow
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
