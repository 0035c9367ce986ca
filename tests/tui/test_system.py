"""The hosts that write to a results directory, as their files tell."""

from pathlib import Path

from suite.spec import Progress
from suite.store.events import EventWriter
from suite.store.study import StudyDir
from tui.model.feed import Watcher
from tui.model.system import hosts, writers
from tui.screens.system import host_lines
from tui.testing.synthetic import HOST, NOW


def test_every_host_is_listed_with_its_writers_and_what_they_report(results: Path) -> None:
    study, watcher = StudyDir(results, "mnist"), Watcher(results, lambda: NOW)
    running = next(run for run in watcher.poll().runs if run.row.state == "running")
    report = Progress(step=300, epoch=3, loss=0.1, lr=0.1, images_per_second=1.0, seconds=9.0)
    update = {"watts": 61.4, "memory_bytes": 2**30, "gpu_busy": 0.75}
    EventWriter(study.trial(running.row.trial).events).append(report.model_copy(update=update))
    status = study.status()
    assert status is not None
    study.status_path.write_text(status.model_copy(update={"host": "away", "process": ""}).model_dump_json())
    snapshot = watcher.poll()
    found = hosts(snapshot, writers(snapshot, NOW, "desk", lambda pid: True), "desk")
    assert [host.name for host in found] == ["desk", HOST, "away"] and found[0].silent is None
    assert [len(host.writers) for host in found] == [0, 2, 1]
    assert sum(host.ended.trials for host in found) == sum(run.has_result for run in snapshot.runs)
    lines = host_lines(found, "desk").plain
    assert "desk (this machine)" in lines and "61 W" in lines and "1 GiB" in lines and "75%" in lines
    assert f"{HOST}  made up · 5 trials ended · 2 writers" in lines
    (nobody,) = hosts(Watcher(results / "none").poll(), [], "desk")
    assert "Nobody is writing" in host_lines([nobody], "desk").plain
