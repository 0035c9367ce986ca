"""The lines in the card that run each format, in virtual environments that hold only what its heading names.

An environment has links to the installed distributions that the runtime and Pillow need, and to no others, so that
nothing is fetched.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from PIL import Image

from suite.data.datasets import search_splits
from suite.export.ensemble import Wanted
from suite.export.predict import Predictor
from suite.export.publish import export, export_ensemble
from suite.export.snippets import TITLES
from suite.spec import Format

if TYPE_CHECKING:
    from tests.conftest import Small
    from tests.export.conftest import Own

RUNTIMES: dict[Format, tuple[str, ...]] = {
    "safetensors": ("timm",),
    "torch-export": ("torch",),
    "onnx": ("onnxruntime", "numpy"),
    "int8": ("onnxruntime", "numpy"),
}

CHECKED = ("suite", "torch", "timm", "onnx", "onnxruntime", "numpy", "PIL", "pydantic")  # modules that may be there

EXPECTED = {
    "safetensors": {"torch", "timm", "numpy", "PIL"},
    "torch-export": {"torch", "PIL"},
    "onnx": {"onnxruntime", "numpy", "PIL"},
    "int8": {"onnxruntime", "numpy", "PIL"},
}

REPORT = f"""
import importlib.util, json
print(json.dumps([name for name in {CHECKED} if importlib.util.find_spec(name)]))
"""


def needed(names: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """The distributions of these names and all that they declare as dependencies, as far as they are installed."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # optional ones, such as CUDA's
            continue
        for text in found[name].requires or []:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return found


def environment(folder: Path, names: tuple[str, ...]) -> Path:
    """A virtual environment with links to what these distributions need; its Python."""
    venv.EnvBuilder(symlinks=True).create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in needed(names).values():
        for file in distribution.files or []:
            if file.parts[0] in ("..", "__pycache__") or file.suffix == ".pth":
                continue
            _link(Path(str(distribution.locate_file(""))), site, file.parts)
    return folder / "bin" / "python"


def _link(source: Path, site: Path, parts: tuple[str, ...]) -> None:
    """A link to the package that a file belongs to. Folders that packages share (namespaces) are made."""
    for part in parts:
        source, site = source / part, site / part
        if site.is_symlink():
            return
        if not source.is_dir() or (source / "__init__.py").exists() or source.suffix in (".dist-info", ".libs"):
            if source.exists():
                site.symlink_to(source)
            return
        site.mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def places(own: Own, small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, tuple[Path, Path]]:
    """For each format a model that has it, and a picture: photos, and digits by an ensemble with views."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("snippets")
    export(own.study.path.parent, f"own/{own.trial('timm')}", folder / "photos", ["torch-export"])
    best = tuple(f"small/{state.id}" for state in small.study.states() if state.state == "finished")[:2]
    export_ensemble(small.results, Wanted(best, None, ("shift",)), folder / "digits", ["onnx", "int8"])
    Image.fromarray(search_splits("mnist", limit=20).validation.images[0, 0]).save(folder / "digit.png")
    photos = (folder / "photos", next(own.pictures.rglob("*.jpg")))
    digits = (folder / "digits", folder / "digit.png")
    return {"safetensors": photos, "torch-export": photos, "onnx": digits, "int8": digits}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "torch-export", "onnx", "int8"])
def test_a_strangers_lines_answer_as_the_suite_does(
    kind: Format, places: dict[Format, tuple[Path, Path]], tmp_path: Path
) -> None:
    model, picture = places[kind]
    title = {"safetensors": "safetensors, with timm and Pillow", **TITLES}[kind]
    _, _, section = (model / "README.md").read_text().partition(f"### {title}\n")
    lines = section.partition("```python\n")[2].partition("```")[0].replace('"photos/', f'"{model}/')
    lines = lines.replace(f"local-dir:{model.name}", f"local-dir:{model}").replace('"digits/', f'"{model}/')
    assert lines.count("\n") <= 22
    python = environment(tmp_path / "bare", (*RUNTIMES[kind], "pillow"))
    code = lines.replace('"picture.png"', repr(str(picture))) + REPORT
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *answer, modules = done.stdout.splitlines()
    label, share = answer[-1].rsplit(" ", 1)
    wanted = Predictor(model, format=kind).file(picture)
    assert label == wanted["label"] and float(share) == pytest.approx(wanted["probabilities"][label], abs=5e-3)
    assert set(json.loads(modules)) == EXPECTED[kind]
    assert sys.prefix not in done.stdout
