"""Where our code is found, and how our processes start: no other file of the same name is run."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.interpreter import ROOT, command, isolate

STRANGERS = (
    "random",
    "optuna",
    "suite",
    "tui",
    "torch",
    "experiments/__init__",
    "experiments/mnist",
    "experiments/own",
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with files that end the process that imports them."""
    folder = tmp_path / "hostile"
    (folder / "experiments").mkdir(parents=True)
    for name in STRANGERS:
        (folder / f"{name}.py").write_text("raise SystemExit('a stranger ran')")
    return folder


def run(words: list[str], folder: Path, python_path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": python_path}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def script(folder: Path) -> list[str]:
    """What pip makes of the entry point, in a folder of its own."""
    path = folder / "bin" / "mnist-suite"
    path.parent.mkdir()
    path.write_text("from mnist_suite import main\nmain()\n")
    return [sys.executable, str(path)]


@pytest.mark.parametrize("python_path", [".", "", "{folder}"])
def test_built_in_experiments_are_found_whatever_lies_around(hostile: Path, tmp_path: Path, python_path: str) -> None:
    python_path = python_path.format(folder=hostile)
    built_in = run([*script(tmp_path), "sweep", "mnist", "--dry-run", "--json"], hostile, python_path)
    assert '"name": "mnist"' in built_in.stdout, built_in.stderr
    unknown = run(command("sweep", "own", "--dry-run"), hostile, python_path)
    assert unknown.returncode == 2 and "no experiment 'own'" in unknown.stderr


@pytest.mark.slow
def test_workers_do_not_look_into_the_current_folder(suite: Callable[..., Any], hostile: Path) -> None:
    words = ("--arms", "cnn-scratch", "--trials", "2", "--limit", "200", "--trial-timeout", "500", "-q")
    settings = ("--set", "epochs=1", "--set", "batch_size=32")
    done = suite("sweep", *words, *settings, cwd=hostile, asking={"spawns": True})
    assert done.returncode == 0 and "2 trials:" in done.stdout and "failed" not in done.stdout, done.stderr


@pytest.mark.parametrize("entry", ["", ".", "lib", "{here}"])
def test_the_current_folder_is_the_last_place_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """Python makes entries of PYTHONPATH absolute before it begins; an empty one is the current folder."""
    other = str(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    entry = entry.format(here=tmp_path)
    found = os.path.abspath(entry)
    monkeypatch.setenv("PYTHONPATH", f"{entry}:{other}")
    monkeypatch.setattr(sys, "path", ["", found, other, "/stdlib"])
    isolate()
    assert sys.path == [str(ROOT), other, "/stdlib", found]
    isolate()
    assert sys.path == [str(ROOT), other, "/stdlib", found]
    assert os.environ["PYTHONSAFEPATH"] == "1"


def test_a_folder_that_was_deleted_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PYTHONPATH", "lib")
    monkeypatch.setattr(sys, "path", ["", "/stdlib"])
    gone.rmdir()
    isolate()
    assert sys.path == [str(ROOT), "/stdlib"]
    monkeypatch.chdir(tmp_path)


def test_there_is_one_way_to_start_python() -> None:
    """Other places would forget `-P`, or ask the import path for `suite`."""
    files = [path for part in ("suite", "tui") for path in (ROOT / part).rglob("*.py")]
    assert [str(p.relative_to(ROOT)) for p in files if "sys.executable" in p.read_text()] == ["suite/interpreter.py"]


@pytest.mark.slow
def test_a_wheel_has_one_name_of_its_own_and_works(
    tmp_path: Path, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    built = next(wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path / "dist"), versions=["standard"]))
    target = tmp_path / "site"
    with zipfile.ZipFile(built) as archive:
        archive.extractall(target)
    tops = {path.name for path in target.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"mnist_suite", "mnist_suite.pth"}
    assert (target / "mnist_suite.pth").read_text().strip() == "mnist_suite"  # for `import suite`, as on a Ray node
    done = run([*script(tmp_path), "--version"], hostile, f"{hostile}:{target}")
    assert f"from {target / 'mnist_suite'} " in done.stdout, done.stderr
    done = run([*script(tmp_path / "site"), "sweep", "fashion", "--dry-run", "--json"], hostile, f"{hostile}:{target}")
    assert '"name": "fashion"' in done.stdout, done.stderr
