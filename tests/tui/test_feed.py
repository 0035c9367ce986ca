import os
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from suite.spec import Evaluated, Progress, Started
from suite.store.events import EventWriter
from suite.store.files import write_model
from suite.store.liveness import STALE_SECONDS, process_id
from suite.store.study import StudyDir
from suite.store.trial import TrialDir
from tui.model.detail import POINTS, Follower, read_validation
from tui.model.feed import Feed, Watcher
from tui.model.logs import clean, tail
from tui.model.snapshot import Run
from tui.testing.synthetic import NOW, make_record, make_trial, write_status, write_study, write_trial
from tui.widgets.budget import budget_line

STATES = {0: "finished", 3: "pruned", 4: "running", 5: "failed", 6: "stale", 7: "stopped", 8: "waiting", 9: "paused"}


def by_number(runs: list[Run]) -> dict[int, Run]:
    return {run.row.number: run for run in runs}


def progress(step: int) -> Progress:
    return Progress(step=step, epoch=step / 100, loss=0.5, lr=0.1, images_per_second=1000.0, seconds=step / 10)


def test_all_states(results: Path) -> None:
    snapshot = Watcher(results, lambda: NOW).poll()
    runs = by_number(snapshot.runs)
    assert {n: runs[n].row.state for n in STATES} == STATES
    study = snapshot.studies[0]
    assert (study.planned, study.done, study.state) == (10, 5, "running")
    assert study.best is not None and study.energy is not None


def test_incremental_and_complete_reading_agree(results: Path) -> None:
    """A watcher that reads new lines only has the states that `StudyDir.states` reads at once."""
    watcher = Watcher(results, lambda: NOW)
    watcher.poll()
    run = by_number(watcher.poll().runs)[4]
    writer = EventWriter(StudyDir(results, "mnist").trial(run.row.trial).events)
    writer.append(progress(300))
    writer.append(Evaluated(step=300, epoch=3, accuracy=0.9, loss=0.1, seconds=30.0))
    plain = {s.id: s for s in StudyDir(results, "mnist").states()}
    for run in watcher.poll().runs:
        state = plain[run.row.trial]
        assert run.row.curve == tuple(a for _, a in state.curve)
        assert run.record == state.record and run.last == state.last


def test_two_viewers_agree(results: Path) -> None:
    one, two = Watcher(results, lambda: NOW), Watcher(results, lambda: NOW)
    one.poll()
    write_trial(StudyDir(results, "mnist"), 11, "finished")
    assert by_number(one.poll().runs) == by_number(two.poll().runs)


def test_a_trial_with_a_result_is_never_opened_again(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(results, lambda: NOW)
    live = {run.row.trial for run in watcher.poll().runs if not run.has_result}
    opened: list[str] = []
    original = TrialDir.record
    monkeypatch.setattr(TrialDir, "record", lambda self: opened.append(self.id) or original(self))
    watcher.poll()
    assert set(opened) == live


def test_nothing_new_keeps_the_version_and_the_objects(results: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    first = watcher.poll()
    assert watcher.poll() is first


def test_an_incomplete_line_is_left_and_a_damaged_one_counted(results: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    run = by_number(watcher.poll().runs)[4]
    with open(StudyDir(results, "mnist").trial(run.row.trial).events, "ab") as file:
        file.write(b'{"seq": 99, "time": 18000')
        file.flush()
        assert by_number(watcher.poll().runs)[4].bad_lines == 0
        file.write(b'xyz}\n{"no": "event"}\n\xff\xfe\n')
    after = by_number(watcher.poll().runs)[4]
    assert after.bad_lines == 3 and after.row.state == "running"


def test_a_run_becomes_stale_and_is_running_again(results: Path) -> None:
    passed = [0.0]
    watcher = Watcher(results, lambda: NOW, lambda: passed[0])
    assert by_number(watcher.poll().runs)[4].row.state == "running"
    passed[0] += STALE_SECONDS + 10
    snapshot = watcher.poll()
    assert by_number(snapshot.runs)[4].row.state == "stale" and snapshot.studies[0].state == "stale"
    write_status(StudyDir(results, "mnist"), ["finished", "running"], heartbeat=NOW + 1)
    snapshot = watcher.poll()
    assert by_number(snapshot.runs)[4].row.state == "running" and snapshot.studies[0].state == "running"


@pytest.mark.parametrize("ahead", [-120, 120, 86400])
def test_the_clock_of_the_viewer_makes_nothing_stale(results: Path, ahead: float) -> None:
    """At the first look a clock that is minutes off leaves a doubt; from the next heartbeat on it plays no part."""
    passed = [0.0]
    watcher = Watcher(results, lambda: NOW + ahead, lambda: passed[0])
    snapshot = watcher.poll()
    if abs(ahead) < 300:
        assert by_number(snapshot.runs)[4].row.state == snapshot.studies[0].state == "running"
    for beat in range(40):
        passed[0] += 2
        write_status(StudyDir(results, "mnist"), ["finished", "running"], heartbeat=NOW + beat)
        snapshot = watcher.poll()
        assert by_number(snapshot.runs)[4].row.state == snapshot.studies[0].state == "running"


def test_a_running_trial_ends_with_its_result(results: Path) -> None:
    import random

    watcher = Watcher(results, lambda: NOW)
    run = by_number(watcher.poll().runs)[4]
    record = make_record(run.trial, "finished", ((1, 0.9), (2, 0.99)), NOW - 50, random.Random(0))
    assert StudyDir(results, "mnist").trial(run.row.trial).commit(record)
    after = by_number(watcher.poll().runs)[4]
    assert after.has_result and after.row.state == "finished" and after.row.accuracy == 0.99


def test_new_trials_studies_and_stop_requests_are_noticed(results: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    watcher.poll()
    study = StudyDir(results, "mnist")
    write_trial(study, 10, "running")
    write_study(results, "other", ["finished"])
    study.request_stop("test")
    snapshot = watcher.poll()
    assert len(snapshot.runs) == 12 and [view.name for view in snapshot.studies] == ["mnist", "other"]
    assert snapshot.studies[0].state == "stopping"


def test_removed_studies_and_trials_disappear(results: Path) -> None:
    write_study(results, "other", ["finished", "running"])
    watcher = Watcher(results, lambda: NOW)
    watcher.poll()
    shutil.rmtree(results / "other")
    assert [view.name for view in watcher.poll().studies] == ["mnist"]
    first = sorted((results / "mnist" / "trials").iterdir())[0]
    shutil.rmtree(first)
    assert first.name not in {run.row.trial for run in watcher.poll().runs}


def test_the_last_state_stays_while_the_results_are_gone(results: Path, tmp_path: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    before = watcher.poll()
    results.rename(tmp_path / "elsewhere")
    gone = watcher.poll()
    assert gone.studies == before.studies and "are gone" in (gone.problem or "") and gone.version > before.version
    assert watcher.poll() is gone
    (tmp_path / "elsewhere").rename(results)
    back = watcher.poll()
    assert back.studies == before.studies and back.problem is None and back.version > gone.version
    shutil.rmtree(results / "mnist")
    assert not watcher.poll().studies  # one study that is deleted is no lost directory


def test_a_killed_controller_is_called_dead_at_the_next_look(results: Path) -> None:
    """Its process is looked for, on this host; its heartbeat may be as fresh as it likes."""
    study = StudyDir(results, "mnist")
    status = study.status()
    assert status is not None
    with subprocess.Popen(["sleep", "100"]) as process:
        mine = {"host": socket.gethostname(), "pid": process.pid, "process": process_id(process.pid)}
        write_model(study.status_path, status.model_copy(update=mine))
        watcher = Watcher(results, lambda: NOW)
        assert not watcher.poll().studies[0].died and by_number(watcher.poll().runs)[4].row.state == "running"
        process.kill()
        process.wait()
    view = watcher.poll().studies[0]
    assert view.died and view.state == "stale" and by_number(list(view.runs))[4].row.state == "stale"
    assert "has died" in budget_line(view, NOW, 120)
    write_model(study.status_path, status)  # of another host: by its rule
    assert not watcher.poll().studies[0].died


def test_a_study_started_anew_under_its_old_name(results: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    watcher.poll()
    file = StudyDir(results, "mnist").study()
    assert file is not None
    write_model(results / "mnist" / "study.json", file.model_copy(update={"created": NOW}))
    shutil.rmtree(results / "mnist" / "trials")
    write_trial(StudyDir(results, "mnist"), 0, "waiting")
    assert [run.row.state for run in watcher.poll().runs] == ["waiting"]


def test_damaged_files_are_left_out(results: Path) -> None:
    (results / "mnist" / "study.json").write_text("{")
    (results / "mnist" / "status.json").write_bytes(b"\xff")
    trials = sorted((results / "mnist" / "trials").iterdir())
    (trials[0] / "result.json").write_text('{"schema_version": 99}')
    (trials[1] / "trial.json").write_text("[]")
    (results / "mnist" / "trials" / "stray file").write_text("")
    snapshot = Watcher(results, lambda: NOW).poll()
    assert snapshot.studies[0].state == "unknown" and len(snapshot.runs) == 9
    assert by_number(snapshot.runs)[0].row.state == "stale"  # without its result it has not ended


def test_a_large_directory_is_read_in_parts(tmp_path: Path) -> None:
    write_study(tmp_path, "many", ["finished"] * 50, epochs=1)
    watcher = Watcher(tmp_path, lambda: NOW)
    first = watcher.poll(budget=0.0)
    assert first.loading == 50 and not first.runs
    while watcher.poll(budget=0.005).loading:
        pass
    assert len(watcher.poll().runs) == 50


def test_a_failed_read_is_reported_and_the_feed_goes_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    feed = Feed(results, lambda snapshot, details, problem: seen.append(problem) or feed.stop())
    monkeypatch.setattr(feed.watcher, "poll", lambda budget: 1 / 0)
    feed._loop()
    assert seen and "ZeroDivisionError" in (seen[0] or "")


# --- one trial in full ---------------------------------------------------------------------------------------


def test_following_a_trial(results: Path) -> None:
    directory = StudyDir(results, "mnist").trial(make_trial("mnist", 0).id)
    follower = Follower(directory)
    detail = follower.poll()
    assert len(detail.loss) == 20 and len(detail.accuracy) == 5 and detail.validation is not None
    assert detail.console[:1] == ((1, "epoch 1"),) and "finished" in detail.log[-1][1]
    assert follower.poll() is detail and not detail.memory  # of a version that did not read it
    update = {"watts": 60.5, "memory_bytes": 2**30, "gpu_busy": 0.5}
    EventWriter(directory.events).append(progress(500).model_copy(update=update))
    found = follower.poll()
    assert [curve[-1].value for curve in (found.power, found.memory, found.gpu)] == [60.5, 2**30, 0.5]


def test_curves_stay_bounded_and_rewind(tmp_path: Path) -> None:
    directory = TrialDir(tmp_path / "t")
    directory.path.mkdir()
    writer = EventWriter(directory.events)
    follower = Follower(directory)
    for step in range(1, 3 * POINTS):
        writer.append(progress(step))
    loss = follower.poll().loss
    assert POINTS / 4 < len(loss) <= POINTS and loss[0].step == 1 and loss[-1].step > 2.9 * POINTS
    writer.append(Started(attempt="b", pid=1, host="h", step=100))
    assert all(point.step <= 100 for point in follower.poll().loss)


def test_control_sequences_are_removed_from_logs(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\n\x07[b]markup\xff\n")
    assert tail(path)[:3] == ("red", "100%", "[b]markup\ufffd")
    assert clean("a\x1b]0;title\x07b\n").startswith("a")
    assert tail(tmp_path / "none") == ()


@pytest.mark.parametrize("text", ["", "[]", '{"classes": ["a"], "confusion": [[1, 2]], "worst": []}', '{"worst": 3}'])
def test_a_malformed_validation_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "validation.json"
    path.write_text(text)
    assert read_validation(path) is None


def test_copies_and_pipes_in_a_study_are_ignored(results: Path) -> None:
    runs = Watcher(results, lambda: NOW).poll().runs
    trials = StudyDir(results, "mnist").trials_path
    ended = next(run.row.trial for run in runs if run.has_result)
    shutil.copytree(trials / ended, trials / f"{ended}-copy")
    os.mkfifo(trials / ended / "pipe")
    assert len(Watcher(results, lambda: NOW).poll().runs) == len(runs)
    assert tail(trials / ended / "pipe") == ()
    assert read_validation(trials / ended / "pipe") is None


def test_unreadable_directories_do_not_stop_the_feed(results: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    os.chmod(results / "mnist" / "trials", 0)
    try:
        assert Watcher(results).poll().runs == []
    finally:
        os.chmod(results / "mnist" / "trials", 0o755)


def test_a_change_of_the_status_alone_is_noticed(results: Path) -> None:
    watcher = Watcher(results, lambda: NOW)
    before = watcher.poll()
    write_status(StudyDir(results, "mnist"), ["finished"] * 12, running=False)
    after = watcher.poll()
    assert after.version > before.version and after.studies[0].state == "done" and after.studies[0].planned == 12
    assert replace(after.studies[0].runs[0]) == before.studies[0].runs[0]
