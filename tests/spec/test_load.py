"""Experiment files: found by path, and with the modules that lie beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.errors import InputError
from suite.spec.load import load_experiment

BODY = """
from suite.spec import Arm, Experiment

EXPERIMENT = Experiment(name=NAME, question="?", dataset="mnist", arms={n: Arm(backbone="net") for n in "ab"}, trials=2)
"""

DATACLASS = """from __future__ import annotations
from dataclasses import dataclass

@dataclass
class A:
    a: int

NAME = 'x'
"""


def write(folder: Path, name: str, *, imports: str = "from ranges import NAME", **neighbours: str) -> Path:
    folder.mkdir(exist_ok=True)
    for path, text in {"ranges.py": f"NAME = '{name}'", **neighbours}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    (folder / "exp.py").write_text(imports + "\n" + BODY)
    return folder / "exp.py"


def test_neighbours_of_one_name_in_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(sys.modules), list(sys.path), list(sys.meta_path)
    first, second = write(tmp_path / "a", "first"), write(tmp_path / "b", "second")
    assert load_experiment(str(first)).name == "first"
    assert load_experiment(str(second)).name == "second"
    monkeypatch.chdir(tmp_path / "a")
    assert load_experiment("./exp.py").name == load_experiment("exp.py").name == "first"
    assert (set(sys.modules), sys.path, sys.meta_path) == before


@pytest.mark.parametrize(
    ("imports", "neighbours"),
    [
        ("from lib.names import NAME", {"lib/names.py": "NAME = 'x'"}),  # a folder without __init__.py
        (
            "from lib.names import NAME",
            {"lib/__init__.py": "", "lib/names.py": "from .deep import NAME", "lib/deep.py": "NAME = 'x'"},
        ),
        (
            "import random\nNAME = random.choice('x')",
            {"random.py": "raise SystemExit"},
        ),  # Python's own are not replaced
        ("import scipy.stats\nNAME = 'x'", {"scipy/notes.txt": ""}),  # a folder of that name is no library
        (
            DATACLASS,
            {},
        ),
    ],
)
def test_what_works_as_a_script_works_by_its_path(tmp_path: Path, imports: str, neighbours: dict[str, str]) -> None:
    assert load_experiment(str(write(tmp_path, "x", imports=imports, **neighbours))).name == "x"


def test_a_neighbour_that_fails_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "x", **{"ranges.py": "import nothing_of_that_name"})
    with pytest.raises(InputError, match=r"ModuleNotFoundError.*nothing_of_that_name"):
        load_experiment(str(path))
    assert "ranges" not in sys.modules


@pytest.mark.slow
def test_neighbours_with_workers(suite: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "there", "beside")
    settings = ("--set", "epochs=1", "--set", "batch_size=32", "--limit", "200", "-q")
    done = suite("sweep", "there/exp.py", "--workers", "2", *settings)
    assert done.returncode == 0 and "2 trials:" in done.stdout and "failed" not in done.stdout, done.stderr
