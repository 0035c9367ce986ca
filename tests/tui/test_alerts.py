"""Alerts: which events raise one, and what is done about them."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.store.liveness import STALE_SECONDS
from suite.store.study import StudyDir
from tui.alerting import Alerting, Hook, log_path
from tui.model.alerts import Alert, alerts, condensed
from tui.model.feed import Watcher
from tui.model.snapshot import Run, Snapshot, StudyView
from tui.settings import Alerts
from tui.testing.synthetic import NOW, make_trial, write_status, write_study, write_trial


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A finished, a failed, a running and a pruned run."""
    results = tmp_path_factory.mktemp("alerts")
    write_study(results, "mnist", ["finished", "failed", "running", "pruned"])
    return Watcher(results, lambda: NOW).poll().runs


def snapshot(runs: list[Run], **fields: object) -> Snapshot:
    return Snapshot(1, NOW, (replace(StudyView("mnist", None, None, False, tuple(runs)), **fields),))


def states(draw_from: list[Run], chosen: list[tuple[int, str, float]]) -> list[Run]:
    """Runs numbered from 0 in these states, with these accuracies."""
    by_state = {run.row.state: run for run in draw_from}
    return [
        replace(by_state[state], key=("mnist", str(i)), row=by_state[state].row._replace(number=i, accuracy=accuracy))
        for i, state, accuracy in chosen
    ]


CHOICE = st.lists(
    st.tuples(st.sampled_from(("finished", "failed", "running", "pruned")), st.sampled_from((0.5, 0.9, 0.99))),
    max_size=6,
)


@given(CHOICE, CHOICE)
def test_alerts_are_the_difference_of_two_snapshots(runs: list[Run], first, second) -> None:
    old = states(runs, [(i, *one) for i, one in enumerate(first)])
    kept = {run.key: run for run in old if run.has_result}  # a result never changes
    new = [kept.get(run.key, run) for run in states(runs, [(i, *one) for i, one in enumerate(second)])]
    found = alerts(snapshot(old), snapshot(new))
    assert alerts(snapshot(new), snapshot(new)) == [] == alerts(Snapshot(), snapshot(new))
    failed = {run.key[1] for run in new if run.row.state == "failed" and run.key not in kept}
    assert {alert.trial for alert in found if alert.kind == "trial-failed"} == failed
    best = [alert for alert in found if alert.kind == "new-best"]
    before = [run.row.accuracy or 0 for run in old if run.row.state == "finished"]
    after = [run.row.accuracy or 0 for run in new if run.row.state == "finished"]
    assert len(best) == (bool(before) and max(after, default=0) > max(before))
    for alert in best:
        assert new[int(alert.trial)].row.accuracy == max(after)


def test_the_end_of_a_study_is_told_once_and_a_wanted_stop_is_not(tmp_path: Path) -> None:
    study = write_study(tmp_path, "mnist", ["finished", "running"])
    watcher = Watcher(tmp_path, lambda: NOW)
    alerting = Alerting(Alerts(), None)
    assert alerting.news(watcher.poll()) == []  # what was before is no news
    write_status(study, ["finished", "finished"], running=False)
    (done,) = alerting.news(watcher.poll())
    assert done.kind == "study-finished" and "best" in done.text and alerting.news(watcher.poll()) == []
    status = study.status()
    assert status is not None
    for state, kinds in (("running", []), ("stopped", []), ("failed", ["study-failed"])):
        study.status_path.write_text(
            status.model_copy(update={"state": state, "message": "disk\x1b full"}).model_dump_json()
        )
        found = alerting.news(watcher.poll())
        assert [alert.kind for alert in found] == kinds and all(alert.text.isprintable() for alert in found)


@pytest.mark.parametrize("reported", [True, False])
def test_a_controller_that_falls_silent_is_told_if_it_was_at_work_since(tmp_path: Path, reported: bool) -> None:
    study, passed = write_study(tmp_path, "mnist", ["finished", "running"]), [0.0]
    watcher = Watcher(tmp_path, lambda: NOW + 100, lambda: passed[0])  # its last heartbeat is old, but not very old
    alerting = Alerting(Alerts(), None)
    alerting.news(watcher.poll())
    if reported:
        write_status(study, ["finished", "running"], heartbeat=NOW + 90)
        assert alerting.news(watcher.poll()) == []
    passed[0] += STALE_SECONDS + 1
    kinds = [alert.kind for alert in alerting.news(watcher.poll())]
    assert watcher.poll().studies[0].stale and kinds == ["study-failed"] * reported


def test_a_study_that_is_copied_here_or_read_in_parts_is_no_news(tmp_path: Path) -> None:
    write_study(tmp_path, "mnist", ["finished"])
    watcher, alerting = Watcher(tmp_path, lambda: NOW), Alerting(Alerts(), None)
    alerting.news(watcher.poll())
    write_study(tmp_path, "other", ["finished", "failed"], running=False)
    assert alerting.news(watcher.poll(budget=0.0)) == [] == alerting.news(watcher.poll())
    write_trial(StudyDir(tmp_path, "other"), 7, "failed")
    assert [alert.trial for alert in alerting.news(watcher.poll())] == [make_trial("other", 7).id]


def test_many_alerts_of_a_kind_are_condensed() -> None:
    found = [Alert("trial-failed", "mnist", str(i), f"{i} failed") for i in range(9)]
    assert [alert.text for alert in condensed(found)] == ["0 failed", "1 failed", "2 failed (and 6 more)"]
    assert condensed(found[:3]) == found[:3]


def ended(hook: Hook) -> list[str]:
    """What the commands say when all of them have ended."""
    problems: list[str] = []
    end = time.monotonic() + 20
    while hook._process is not None or hook._waiting:
        if problem := hook.tend():
            problems.append(problem)
        assert time.monotonic() < end
        time.sleep(0.01)
    return problems


def test_the_command_gets_the_event_as_variables_and_no_shell_sees_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    text = "$(touch made); `touch made` && 'x' \"y\""
    hook = Hook(
        "sh -c 'echo \"$MNIST_SUITE_EVENT $MNIST_SUITE_TEXT\"; exit 3' $(touch made)",
        tmp_path,
        {"PATH": "/usr/bin:/bin"},
    )
    monkeypatch.chdir(tmp_path)
    for trial in "ab":
        hook.raised(Alert("new-best", "mnist", trial, text))
    problems = ended(hook)
    assert len(problems) == 2 and all("code 3" in problem for problem in problems)
    assert log_path().read_text() == f"new-best {text}\n" * 2 and not (tmp_path / "made").exists()


@pytest.mark.parametrize("command", ["/no/such", "a\0b"])
def test_a_command_that_cannot_be_started_is_told(tmp_path: Path, command: str) -> None:
    hook = Hook(command, tmp_path, {})
    hook.raised(Alert("new-best", "mnist", "", ""))
    assert hook.tend()


def test_the_dashboard_tells_news_and_starts_nothing_when_read_only(results, drive, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    settings = tmp_path / "config" / "mnist-suite" / "settings.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[alerts]\nbell = true\ncommand = "touch ' + str(tmp_path / "made") + '"\n')

    async def script(app, pilot) -> None:
        rung: list[bool] = []
        monkeypatch.setattr(app, "bell", lambda: rung.append(True))
        write_trial(StudyDir(results, "mnist"), 40 + app.readonly, "failed")
        app.poll()
        await pilot.pause()
        assert rung and any("failed" in note.message for note in app._notifications)
        assert (app.alerting._hook is None) == app.readonly

    drive(results, script, readonly=True)
    assert not (tmp_path / "made").exists()
    drive(results, script)
    end = time.monotonic() + 20
    while not (tmp_path / "made").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
