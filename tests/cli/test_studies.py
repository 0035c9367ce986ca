"""What commands tell of studies: failures, repeats, arms without trials, controllers that have died."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.cli.console import lost_controller
from suite.cli.run import _successful
from suite.errors import WorkError
from suite.spec import Status
from suite.store.files import write_model
from suite.store.study import StudyDir
from tui.testing.synthetic import write_study

Suite = Callable[..., subprocess.CompletedProcess[str]]


def status_of(study: StudyDir, **changes: object) -> Status:
    status = study.status()
    assert status is not None
    return status.model_copy(update={"state": "done", **changes})


def test_reasons_of_failed_trials_are_said_by_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three trials failed of two causes: numbers in a reason make no cause of their own."""
    study = write_study(tmp_path, "mixed", ["finished", "failed", "failed", "failed"], running=False)
    reasons = ["tried to allocate 812 MiB", "tried to allocate 9 MiB", "[disk] full."]
    failed = [trial for trial in study.trials() if (record := trial.record()) and record.state == "failed"]
    for trial, reason in zip(failed, reasons, strict=True):
        record = trial.record()
        assert record is not None
        write_model(trial.result, record.model_copy(update={"reason": reason}))
    _successful(status_of(study), tmp_path, "mixed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: ") for line in lines)
    assert "2 trials" in lines[0] and "(0001, 0002): tried to allocate 812 MiB." in lines[0]
    assert "1 trial of" in lines[1] and lines[1].endswith("(0003): [disk] full.")
    with pytest.raises(WorkError, match="Every trial of study"):
        _successful(status_of(study, finished=0), tmp_path, "mixed")


def test_arms_without_trials_are_named(suite: Suite) -> None:
    done = suite("sweep", "--trials", "2", "--dry-run", "--quiet", "--json")
    assert done.returncode == 0
    arms = list(json.loads(done.stdout)["arms"])
    assert f"none for {', '.join(arms[2:])}." in done.stderr and f"--trials {len(arms)}" in done.stderr
    assert suite("sweep", "--trials", len(arms), "--dry-run").stderr == ""


@pytest.mark.slow
def test_a_repeated_training_is_said_to_be_one_and_a_failed_one_is_trained_again(suite: Suite, tmp_path: Path) -> None:
    words = ("pretrain", "--backbone", "net", "--limit", "100", "--set", "epochs=1", "--set", "batch_size=32")
    first, again = suite(*words, "-q"), suite(*words, "-q")
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "lr=0.005 batch_size=32 epochs=1" in first.stdout
    assert "Trained before, on 20" in again.stdout and "--seed" in again.stdout
    assert again.stdout.endswith(first.stdout)
    assert json.loads(suite(*words, "--json").stdout)["repeated"] is True
    assert "lr=0.005 batch_size=32 epochs=1" in suite("leaderboard").stdout
    (trial,) = next((tmp_path / "results").glob("*/trials")).parent.glob("trials/*")
    record = json.loads((trial / "result.json").read_text())
    failed = {"state": "failed", "reason": "no space left", "accuracy": None, "artifact": None, "artifact_sha256": None}
    (trial / "result.json").write_text(json.dumps(record | failed | {"balanced_accuracy": None}))
    (trial / "SHA256SUMS").unlink()
    mended = suite(*words)
    assert mended.returncode == 0, mended.stderr
    assert "failed before (no space left): it is trained again" in mended.stderr
    assert "Trained before" not in mended.stdout and mended.stdout.split("\n")[0] == first.stdout.split("\n")[0]


def test_a_controller_that_has_died_is_said_to_have_died_with_the_way_on(suite: Suite, tmp_path: Path) -> None:
    """Seconds after its last heartbeat, which is what `kill -9` leaves behind."""
    import socket
    import time

    results = tmp_path / "results"
    study = write_study(results, "killed", ["finished", "running"])
    dead = {"state": "running", "pid": 2**22 + 1, "host": socket.gethostname(), "heartbeat": time.time()}
    write_model(study.status_path, status_of(study, **dead))
    said = suite("status").stdout
    assert said.startswith("killed: died, 1/2 trials") and "left" not in said
    assert "has died" in said and "`mnist-suite sweep --study killed --resume --results" in said
    assert json.loads(suite("status", "--json").stdout)[0]["state"] == "died"
    assert " stale " in suite("leaderboard", "killed").stdout
    assert "not running" in suite("stop", "killed").stdout and not study.stop_path.exists()


def test_a_controller_elsewhere_is_called_silent_not_dead(tmp_path: Path) -> None:
    status = status_of(write_study(tmp_path, "s", ["running"]))
    assert "may be dead" in lost_controller(status, "silent", None)
    assert lost_controller(status, "working", None) == lost_controller(status, "ended", None) == ""


def test_one_trial_is_asked_to_end(suite: Suite, tmp_path: Path) -> None:
    import os
    import socket
    import time

    results = tmp_path / "results"
    study = write_study(results, "live", ["finished", "running"])
    done, running = study.states()
    here = {"state": "running", "pid": os.getpid(), "host": socket.gethostname(), "heartbeat": time.time()}
    write_model(study.status_path, status_of(study, **here))
    said = suite("stop", "live/1", "--reason", "enough")
    assert f"Asked trial {running.id} to end" in said.stdout, said.stderr
    assert study.trial(running.id).stop_request() == "enough" and not study.stop_path.exists()
    assert "is over: finished" in suite("stop", f"live/{done.id}").stdout
    wrong = suite("stop", "live/77")
    assert wrong.returncode == 2 and "no trial" in wrong.stderr
