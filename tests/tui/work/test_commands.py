import ast
import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tui
from suite.errors import InputError
from tui.work import commands
from tui.work.commands import (
    declared,
    dry_run,
    free_name,
    model_folder,
    new_folder,
    refusal,
    resume_words,
    typed,
)


def test_a_folder_that_cannot_be_is_refused_with_its_reason(tmp_path: Path) -> None:
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("")
    (full / "inside").mkdir(parents=True)
    for typed_path in (
        "",
        " ",
        str(file),
        str(file / "below"),
        str(full),
        "~nobody_here/x",
        "~m",
        "x" * 300,
        "a\0b",
        "\ud800",
    ):
        for folder in (new_folder, model_folder):
            if (folder, typed_path) != (model_folder, str(full)):
                assert refusal(folder, typed_path), (folder, typed_path)
    assert refusal(new_folder, str(tmp_path / "new")) is None and refusal(model_folder, str(full)) is None


FILE = """
import pathlib, sys, time
print("loading")
{}
from suite.spec import Arm, Experiment
EXPERIMENT = Experiment(name="own", question="{{?", dataset="mnist", arms={{"a": Arm(backbone="net")}}, trials=1)
"""


def test_a_file_is_run_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE.format("open(__file__ + '.pid', 'w').write(str(__import__('os').getpid()))"))
    found = declared(asyncio.run(dry_run(["sweep", str(path)], os.environ)))
    assert found.name == "own" and list(found.arms) == ["a"]
    assert int((tmp_path / "own.py.pid").read_text()) != os.getpid()
    path.write_text(FILE.format("raise SystemExit(3)"))
    with pytest.raises(InputError, match="could not be loaded: SystemExit: 3"):
        asyncio.run(dry_run(["sweep", str(path)], os.environ))
    path.write_text(FILE.format("time.sleep(60)"))
    monkeypatch.setattr(commands, "CHECK_SECONDS", 0.5)
    with pytest.raises(InputError, match="did not end within"):
        asyncio.run(dry_run(["sweep", str(path)], os.environ))


def test_a_refused_command_says_why() -> None:
    with pytest.raises(InputError, match=r"^There is no experiment 'none'"):
        asyncio.run(dry_run(["sweep", "none"], os.environ))


def test_resuming_names_the_study_and_not_the_experiment() -> None:
    assert typed(resume_words("my", 1, Path("/r"))) == "mnist-suite sweep --study my --resume --results /r"
    assert typed(resume_words("my", 3, Path("/r"))) == "mnist-suite sweep --study my --workers 3 --resume --results /r"


def test_free_names(tmp_path: Path) -> None:
    assert free_name("mnist", tmp_path) == "mnist"
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist-2").mkdir()
    assert free_name("mnist", tmp_path) == "mnist-3" == free_name("mnist-2", tmp_path)


# --- imports ------------------------------------------------------------------------------------------------------


def test_the_dashboard_loads_neither_torch_nor_optuna_nor_scipy() -> None:
    heavy = ("torch", "optuna", "timm", "sklearn", "scipy", "pandas")
    program = f"import sys, tui.app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also for the type checker only; a relative import does not count."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_part_of_the_dashboard_imports_the_application_that_imports_it() -> None:
    root = Path(next(iter(tui.__path__)))
    for path in root.rglob("*.py"):
        if path.name != "app.py" and path.parent.name != "testing":
            assert not any(name.startswith(("tui.app", "tui.testing")) for name in imports(path)), path


def test_model_and_draw_do_without_textual() -> None:
    root = Path(next(iter(tui.__path__)))
    for path in [*(root / "model").rglob("*.py"), *(root / "draw").rglob("*.py")]:
        used = {name.split(".")[0] for name in imports(path)}
        assert "textual" not in used, path
        assert not any(name.startswith("tui.draw") for name in imports(path)) or path.parent.name == "draw", path


def test_the_dashboard_imports_the_light_part_of_the_suite_only() -> None:
    allowed = {"suite.spec", "suite.store", "suite.ranking", "suite.errors", "suite.interpreter"}
    files = list(Path(next(iter(tui.__path__))).rglob("*.py"))
    assert len(files) > 20
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "suite":
                names = {f"suite.{alias.name}" for alias in node.names} if node.module == "suite" else {node.module}
                assert {".".join(name.split(".")[:2]) for name in names} <= allowed, (path, names)
            elif isinstance(node, ast.Import):
                assert not any(a.name.split(".")[0] == "suite" for a in node.names), path


def test_files_stay_small() -> None:
    for path in Path(next(iter(tui.__path__))).rglob("*.py"):
        assert len(path.read_text().splitlines()) < 400, path
