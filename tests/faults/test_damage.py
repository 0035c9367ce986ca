"""Truncations, bit flips and lost files in a study that was killed: found, said, mended, and nothing invented."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from suite.store.study import StudyDir

# Damaged in one run: files of which none can hide what happens to another.
TOGETHER = [("optuna.db", "status.json", "checkpoint.json"), ("study.json", "SHA256SUMS", "last.safetensors"),
            ("result.json",), ("trial.json",), ("events.jsonl",)]  # fmt: skip


@pytest.fixture(scope="session")
def killed(start, experiment: Path, once, faults) -> Path:
    """Results with a study that was killed as it had a promoted trial at work, and trials in every other state."""

    def make(results: Path) -> Path:
        for moment in ("before SHA256SUMS 4", "after checkpointed 3"):
            run = start("sweep", experiment, "--resume", "--results", results, KILL_AT=moment)
            assert run.wait() == -signal.SIGKILL, run.errors
        found = {(state.state, len(state.rungs)) for state in StudyDir(results, "small").states()}
        assert found == {("finished", 2), ("pruned", 1), ("pruned", 2), ("paused", 1), ("running", 1)}
        return results

    return once("killed", make)


@pytest.mark.parametrize("names", TOGETHER, ids=" ".join)
def test_damaged_files_are_mended_on_resume(
    start,
    experiment: Path,
    reference,
    killed: Path,
    tmp_path: Path,
    seed: int,
    figures,
    faults,
    hurt,
    names: tuple[str, ...],
) -> None:
    """Those of finished trials and of the unfinished one where there are both."""
    chance = random.Random(f"{seed} {names}")
    results = tmp_path / "results"
    shutil.copytree(killed, results)
    directory = StudyDir(results, "small")
    for path in sorted(path for name in names for path in directory.path.rglob(name)):
        how = chance.choice(["truncate", "flip", "noise"])
        print(path.relative_to(results), how)  # noqa: T201
        if path.stat().st_size and (path.name != "trial.json" or chance.random() < 0.7):
            hurt(path, how, chance)
            figures.fault(how)
    seen = start("doctor", "small", "--results", results)
    assert seen.wait() in (0, 1), seen.errors
    run = start("sweep", experiment, "--resume", "--results", results)
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures, logs="events.jsonl" not in names)
    faults.check_identical(directory, reference, figures)


def test_a_damaged_model_is_found_and_trained_again(
    start, experiment: Path, reference, killed: Path, tmp_path: Path, seed: int, figures, faults, hurt
) -> None:
    results = tmp_path / "results"
    shutil.copytree(killed, results)
    directory = StudyDir(results, "small")
    finished = next(s for s in directory.states() if s.state == "finished")
    hurt(directory.trial(finished.id).best, "flip", random.Random(seed))
    (directory.path / "optuna.db").write_bytes(b"no database" * 500)
    (directory.path / "optuna.db-wal").unlink(missing_ok=True)  # it may hold every page, and then nothing is lost
    figures.fault("flip")
    export = start("export", f"small/{finished.id}", "--to", tmp_path / "model", "--results", results)
    assert export.wait() == 2
    assert "damaged" in export.errors
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    looked = start("doctor", "small", "--results", results)
    assert looked.wait() == 1, looked.errors
    assert "best.safetensors, which is damaged" in looked.output
    assert "optuna.db is damaged" in looked.output
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before  # looking changes nothing
    repaired = start("doctor", "small", "--repair", "--results", results)
    assert repaired.wait() == 0, repaired.errors + repaired.output
    run = start("sweep", experiment, "--resume", "--results", results)
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    clean = start("doctor", "small", "--results", results)
    assert clean.wait() == 0, clean.output


def test_what_a_person_put_among_the_trials_is_kept_and_not_counted(
    start, experiment: Path, reference, killed: Path, tmp_path: Path, figures, faults
) -> None:
    """In a folder whose name is no text, as that of a study from an old disk may be."""
    results = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(killed, results)
    directory = StudyDir(results, "small")
    finished = next(s for s in directory.states() if s.record)
    shutil.copytree(directory.trial(finished.id).path, directory.trials_path / f"{finished.id}-copy")
    for name in ("notes", "lost"):
        (directory.trials_path / name).mkdir()
        (directory.trials_path / name / "mine.txt").write_text("mine")
    (directory.trials_path / "lost" / "trial.json").write_text("{")
    (directory.trials_path / "notes.txt").write_text("mine")
    (directory.trials_path / "0099-00000000").symlink_to("nowhere")
    figures.fault("strange")
    run = start("sweep", experiment, "--resume", "--results", results)
    assert run.wait() == 0, run.errors
    assert len(list(directory.path.rglob("mine.txt"))) == 2
    assert (directory.path / "damaged" / f"{finished.id}-copy" / "result.json").exists()
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    model = tmp_path / os.fsdecode(b"mod\xe8le")
    export = start("export", "small", "--to", model, "--results", results)
    assert export.wait() == 0, export.errors
    (tmp_path / "loop").symlink_to("loop")
    refused = start("export", "small", "--to", tmp_path / "loop" / "model", "--results", results)
    assert refused.wait() == 2, refused.errors


def test_another_experiment_is_never_mixed_in(
    start, experiment: Path, killed: Path, tmp_path: Path, figures, faults
) -> None:
    results = tmp_path / "results"
    shutil.copytree(killed, results)
    (results / "small" / "study.json").unlink()
    other = tmp_path / "other.py"
    other.write_text(experiment.read_text().replace('schedule="cosine"', 'schedule="constant"'))
    figures.fault("remove")
    without = start("sweep", experiment, "--results", results)
    assert without.wait() == 2
    assert "--resume" in without.errors
    run = start("sweep", other, "--resume", "--results", results)
    assert run.wait() == 2, run.errors
    assert "another experiment" in run.errors
    assert not (results / "small" / "study.json").exists()


def test_what_a_newer_version_wrote_is_left_alone(
    start, experiment: Path, killed: Path, tmp_path: Path, figures, faults
) -> None:
    for name in ("result.json", "trial.json", "study.json"):
        results = tmp_path / name
        shutil.copytree(killed, results)
        directory = StudyDir(results, "small")
        path = next(directory.path.rglob(name))
        path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
        figures.fault("newer version")
        before = {p: p.read_bytes() for p in directory.trials_path.rglob("*") if p.is_file()}
        for command in (["sweep", experiment, "--resume"], ["doctor", "small", "--repair"]):
            run = start(*command, "--results", results)
            assert run.wait() == (2 if command[0] == "sweep" else 1), run.errors
            assert "newer version" in run.errors + run.output
        assert {p: p.read_bytes() for p in directory.trials_path.rglob("*") if p.is_file()} == before


def test_a_study_that_is_being_run_looks_sound_at_any_moment(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "small")
    run = start("sweep", experiment, "--workers", 2, "--trials", 4, "--results", tmp_path, pinned=False)
    faults.wait_for(lambda: run.poll() is not None or directory.exists())
    looks, seen = 0, -1
    while run.poll() is None:
        faults.wait_for(lambda before=seen: run.poll() is not None or faults.events_of(tmp_path) > before)
        seen = faults.events_of(tmp_path)
        look = start("doctor", "small", "--results", tmp_path)
        assert look.wait() == 0, look.output + look.errors
        looks += 1
    assert looks
    figures.fault("viewer")
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures, 4)
