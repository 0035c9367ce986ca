"""The files: whole or absent, readable while they grow, honest when damaged."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.errors import InputError
from suite.spec import Evaluated, Finished, Line, Paused, Progress, Record, Started, Stopped, Trial
from suite.store.events import EventReader, EventWriter
from suite.store.files import check_name, on_network_disk, read_model, write_atomic, write_model
from suite.store.repair import result_fault, set_aside
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState
from suite.training import checkpoint


def evaluated(epoch: int, accuracy: float = 0.5) -> Evaluated:
    return Evaluated(step=epoch * 10, epoch=epoch, accuracy=accuracy, loss=1.0, seconds=1.0)


def started(step: int = 0, attempt: str = "a") -> Started:
    return Started(attempt=attempt, pid=1, host="h", step=step)


def test_events_come_back_in_order_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer, reader = EventWriter(path), EventReader(path)
    assert reader.poll() == []
    writer.append(started())
    writer.append(evaluated(1))
    assert [line.event.kind for line in reader.poll()] == ["started", "evaluated"]
    assert reader.poll() == []
    writer.append(evaluated(2))
    assert [line.seq for line in reader.poll()] == [2]


@given(cut=st.integers(1, 200))
@settings(max_examples=40)
def test_a_torn_tail_is_left_for_later_and_closed_by_the_next_writer(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    writer = EventWriter(path)
    for epoch in range(3):
        writer.append(evaluated(epoch))
    writer.close()
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    before = EventReader(path).poll()
    assert [line.event.epoch for line in before] == list(range(len(before)))  # type: ignore[union-attr]
    again = EventWriter(path)
    again.append(Finished(accuracy=1.0, step=1))
    lines = EventReader(path).poll()
    assert lines[: len(before)] == before
    assert lines[-1].event.kind == "finished"
    assert [line.seq for line in lines] == sorted({line.seq for line in lines})


@given(chunks=st.lists(st.binary(max_size=80), max_size=20))
@settings(max_examples=60)
def test_readers_survive_arbitrary_bytes_and_invent_nothing(
    chunks: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    genuine = Line(seq=7, time=1.0, event=evaluated(1))
    content = b"\n".join([*chunks, genuine.model_dump_json().encode()]) + b"\n"
    (folder / "events.jsonl").write_bytes(content)
    (folder / "result.json").write_bytes(content)
    reader = EventReader(folder / "events.jsonl")
    assert [line for line in reader.poll() if line == genuine] == [genuine]
    assert read_model(folder / "result.json", Record) is None


def test_a_replaced_log_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventWriter(path).append(started())
    reader = EventReader(path)
    reader.poll()
    path.unlink()
    (tmp_path / "keeps-the-inode-busy").touch()
    EventWriter(path).append(evaluated(1))
    assert [line.event.kind for line in reader.poll()] == ["evaluated"]


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, None)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut asks for. The calls are watched, and carried out."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        done.append("fsync of the folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "fsync of the file")
        fsync(handle)

    def watched_replace(source: Path, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomic(tmp_path / "file", "new")
    assert done == ["fsync of the file", "rename", "fsync of the folder"]
    done.clear()
    checkpoint.save(tmp_path, {}, {"step": 1})
    assert done == ["fsync of the file", "rename", "fsync of the folder"] * 2


def test_network_disks_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a table of mounts as Linux shows it; a link that leads onto such a disk is seen through."""
    import psutil

    kinds = {"nfs4": "nfs4", "smb": "cifs", "sshfs": "fuse.sshfs", "plain": "ext4", "memory": "tmpfs"}
    (tmp_path / "self").mkdir()
    table = "".join(f"server:/x {tmp_path / name} {kind} rw 0 0\n" for name, kind in kinds.items())
    (tmp_path / "self/mounts").write_text(f"/dev/sda / ext4 rw 0 0\n{table}")
    for name in kinds:
        (tmp_path / name).mkdir()
    (tmp_path / "plain/link").symlink_to(tmp_path / "nfs4")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    found = {name: on_network_disk(tmp_path / name / "results") for name in kinds}
    assert found == {"nfs4": "nfs4", "smb": "cifs", "sshfs": "fuse.sshfs", "plain": None, "memory": None}
    assert on_network_disk(tmp_path / "plain/link/results") == "nfs4"


def test_only_the_latest_attempt_may_commit(tmp_path: Path) -> None:
    directory = TrialDir(tmp_path / "0000-abc")
    directory.path.mkdir()
    writer = EventWriter(directory.events)
    writer.append(started(attempt="old"))
    writer.append(started(attempt="new"))
    late = Record(trial="0000-abc", arm="a", state="finished", attempt="old")
    assert not directory.commit(late)
    assert directory.record() is None
    assert directory.commit(late.model_copy(update={"attempt": "new"}))
    assert directory.record() is not None


def test_asking_whether_a_trial_was_taken_up_reads_each_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked with each of n events, it reads n lines in all, and notices another attempt at once."""
    read = 0
    poll = EventReader.poll

    def counted(self: EventReader) -> list[Line]:
        nonlocal read
        lines = poll(self)
        read += len(lines)
        return lines

    directory = TrialDir(tmp_path / "0000-abc")
    directory.path.mkdir()
    writer = EventWriter(directory.events)
    monkeypatch.setattr(EventReader, "poll", counted)
    writer.append(started(attempt="mine"))
    for epoch in range(1, 100):
        writer.append(evaluated(epoch))
        assert not directory.overtaken("mine", 0)
    assert read == 100
    writer.append(started(attempt="another"))
    assert directory.overtaken("mine", 0)
    assert not directory.overtaken("another", 100)
    assert directory.next_seq() == 101


def test_a_resumed_attempt_takes_back_what_it_will_repeat(make_trial: Callable[..., Trial]) -> None:
    state = TrialState("0000-abc", make_trial())
    events = [started(), evaluated(1, 0.5), evaluated(2, 0.9), started(step=10), evaluated(2, 0.8)]
    state.update([Line(seq=i, time=float(i), event=e) for i, e in enumerate(events)])
    assert state.curve == [(1, 0.5), (2, 0.8)]
    state.update([Line(seq=9, time=9.0, event=Stopped(reason="asked", step=20))])
    assert state.state == "stopped"


def test_a_promoted_trial_begins_a_new_curve(make_trial: Callable[..., Trial]) -> None:
    state = TrialState("0000-abc", make_trial(stages=(1.0,)))
    events = [started(), evaluated(1, 0.5), Paused(epochs=1.0, accuracy=0.5, step=10), started(), evaluated(1, 0.4)]
    found = []
    for seq, event in enumerate(events):
        state.update([Line(seq=seq, time=float(seq), event=event)])
        found.append((state.state, state.best, list(state.curve)))
    assert found[2:] == [("paused", 0.5, [(1, 0.5)]), ("running", 0.5, []), ("running", 0.4, [(1, 0.4)])]
    assert state.rungs == [(1.0, 0.5)]


def test_only_result_json_makes_a_trial_finished(make_trial: Callable[..., Trial]) -> None:
    state = TrialState("0000-abc", make_trial())
    state.update([Line(seq=0, time=0.0, event=started()), Line(seq=1, time=1.0, event=Finished(accuracy=1.0, step=1))])
    state.settle(None)
    assert state.state == "running"
    state.settle(Record(trial="0000-abc", arm="a", state="finished", attempt="a", accuracy=0.5))
    assert (state.state, state.best) == ("finished", 0.5)


def test_a_trial_that_was_copied_by_hand_is_counted_once(tmp_path: Path, make_trial: Callable[..., Trial]) -> None:
    study, trial = StudyDir(tmp_path, "s"), make_trial()
    place = study.trial(trial.id)
    place.create(trial)
    place.conclude(Record(trial=trial.id, arm="a", state="finished", attempt="a", accuracy=0.5))
    for name in (f"{trial.id}-copy", f"0009-{trial.id[5:]}", f"{trial.id[:5]}00000000"):
        shutil.copytree(place.path, place.path.with_name(name))
    (place.path.parent / "notes.txt").write_text("mine")
    assert [s.id for s in study.states() if s.record is not None] == [trial.id]
    assert "notes.txt" not in study.trial_ids()


def test_a_copy_of_a_trial_has_neither_parameters_nor_a_result(
    tmp_path: Path, make_trial: Callable[..., Trial]
) -> None:
    """Read by its directory alone, too, as the dashboard does; `repair` still sees what its result speaks of."""
    study, trial = StudyDir(tmp_path, "s"), make_trial()
    place = study.trial(trial.id)
    place.create(trial)
    place.conclude(Record(trial=trial.id, arm="a", state="failed", attempt="a"))
    copy = study.trial(f"{trial.id}-copy")
    shutil.copytree(place.path, copy.path)
    assert (copy.trial(), copy.record(), copy.sound()) == (None, None, False)
    assert result_fault(copy) == f"speaks of trial {trial.id}"
    assert place.trial() == trial
    assert place.record() is not None


def test_a_trial_is_made_over_what_a_killed_controller_left(tmp_path: Path, make_trial: Callable[..., Trial]) -> None:
    study, trial = StudyDir(tmp_path, "s"), make_trial()
    place = study.trial(trial.id)
    place.path.mkdir(parents=True)
    (place.path / ".trial.json.3631.5e856d.tmp").write_text("{")
    place.create(trial)
    assert [path.name for path in place.path.iterdir()] == ["trial.json"]


def test_files_set_aside_are_all_kept(tmp_path: Path) -> None:
    """One that is damaged again does not replace what was kept of it before."""
    path = tmp_path / "result.json"
    kept: list[Path] = []
    for content in ("first", "second", "third"):
        path.write_text(content)
        kept.append(set_aside(path))
    assert [one.read_text() for one in kept] == ["first", "second", "third"]
    assert [one.name for one in kept] == ["result.json.damaged", "result.json.damaged.2", "result.json.damaged.3"]


@pytest.mark.timeout(30)
def test_what_is_no_plain_file_is_never_read(tmp_path: Path, make_trial: Callable[..., Trial]) -> None:
    """Reading a pipe or a device of a stranger's study would never end."""
    study, trial = StudyDir(tmp_path, "s"), make_trial()
    place = study.trial(trial.id)
    place.create(trial)
    for name in ("result.json", "events.jsonl", "SHA256SUMS"):
        os.mkfifo(place.path / name)
    (study.path / "study.json").symlink_to("/dev/zero")
    with open(study.status_path, "wb") as file:
        file.truncate(2**40)  # nothing but a hole
    assert [s.state for s in study.states()] == ["waiting"]
    assert (study.study(), study.status(), place.sums()) == (None, None, {})
    assert place.sound()


@pytest.mark.parametrize("name", ["../up", "/abs", "", ".hidden", "a/b", "nul\0", "x" * 300, "ü", "-dash", "a\n"])
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name, "Study")


def test_a_second_controller_is_told_who_holds_the_study(tmp_path: Path) -> None:
    study = StudyDir(tmp_path, "s")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom suite.store.study import StudyDir\n"
        "with StudyDir(Path(sys.argv[1]), 's').lock():\n print('held', flush=True)\n time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"pid {other.pid}"), study.lock():
            pass
        other.kill()
        other.wait()
        with study.lock():  # the lock fell with its holder
            pass


def test_models_are_written_whole(tmp_path: Path) -> None:
    event = Progress(step=1, epoch=0.1, loss=None, lr=0.1, images_per_second=1.0, seconds=1.0)
    line = Line(seq=0, time=1.5, event=event)
    write_model(tmp_path / "line.json", line)
    assert read_model(tmp_path / "line.json", Line) == line
    (tmp_path / "line.json").write_bytes((tmp_path / "line.json").read_bytes()[:-5])
    assert read_model(tmp_path / "line.json", Line) is None
