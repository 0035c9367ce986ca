"""The command `explain`: pictures, figures, failures beside answers, and what is kept with a trial."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suite.reporting import plots_explanations, sections_explanations
from suite.reporting.facts import gather
from suite.reporting.plots_style import as_png
from suite.spec import METHODS, Explanations
from suite.store.files import read_model
from suite.store.study import StudyDir
from suite.store.trial import EXPLANATIONS
from tests.conftest import Run

FIXTURE = Path(__file__).parents[1] / "fixtures" / "study-0.1" / "finished"


@pytest.fixture
def pictures(tmp_path: Path, digits) -> list[Path]:
    """A digit, and a file that is none."""
    Image.fromarray(digits.images[0, 0]).save(tmp_path / "a digit.png")
    (tmp_path / "notes.png").write_text("no picture")
    return [tmp_path / "a digit.png", tmp_path / "notes.png"]


def test_a_picture_is_explained_beside_one_that_is_none(run: Run, exported: Path, pictures, tmp_path, digits) -> None:
    to = tmp_path / "out"
    done = run("explain", exported, *pictures, "--json", "--to", to, "--maps", "npy", "--nearest", 0)
    assert done.code == 1
    one, other = json.loads(done.out)
    assert one["label"] == str(digits.labels[0]) == one["target"] and one["true"] is None
    assert [each["method"] for each in one["maps"]] == list(METHODS)
    by_method = {each["method"]: each for each in one["maps"]}
    assert by_method["grad-cam"]["layer"] == "stages.1" and by_method["grad-cam"]["cells"] == [7, 7]
    assert by_method["integrated-gradients"]["remainder"] <= 0.01 and by_method["occlusion"]["window"] == 4
    assert all(0 <= each["deletion"] <= 1 for each in one["maps"]) and one["nearest"] == []
    assert "notes.png" in other["error"]
    names = {path.name for path in to.iterdir()}
    assert names == {"0001-a-digit.png", *(f"0001-a-digit-{method}.npy" for method in METHODS)}
    assert np.load(by_method["occlusion"]["file"]).shape == (28, 28)
    with Image.open(to / "0001-a-digit.png") as drawn:
        assert drawn.width > 5 * 28 and len(np.unique(np.asarray(drawn.convert("L")))) > 50


def test_text_names_the_figures_and_the_class_that_is_asked_about(run: Run, exported: Path, pictures, digits) -> None:
    target = (int(digits.labels[0]) + 1) % 10
    done = run("explain", exported, pictures[0], "--method", "occlusion", "--target", target, "--nearest", 0, "-q")
    assert done.code == 0 and not done.err
    assert f"maps for {target} (" in done.out and "window 4 px" in done.out and "---" in done.out
    assert "nearest" not in done.out and "saliency" not in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{model}"], "Name at least one picture"),
        (["nowhere", "x.png"], "neither a folder"),
        (["{model}", "x.png", "--target", "ten"], "'ten' is no class"),
        (["{model}", "x.png", "--method", "magic"], "choose from saliency"),
        (["{model}", "x.png", "--maps", "npy"], "--to DIR"),
        (["{model}", "x.png", "--maps", "json"], "add --json"),
        (["{model}", "x.png"], "no image"),
        (["{model}", "{picture}", "--to", "{beside}"], "another folder"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, exported: Path, pictures, words: list[str], said: str) -> None:
    places = {"model": exported, "picture": pictures[0], "beside": pictures[0].parent}
    done = run("explain", *(word.format(**places) for word in words))
    assert done.code == 2 and said in done.err


def test_without_captum_the_cure_is_named(run: Run, exported: Path, pictures, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    done = run("explain", exported, pictures[0])
    assert done.code == 2 and "pip install 'mnist-suite[explain]'" in done.err


def place(results: Path) -> Path:
    """The file with the explanations of the best trial."""
    (path,) = results.glob(f"small/trials/*/{EXPLANATIONS}")
    return path


@pytest.fixture
def kept(run: Run, tmp_path: Path) -> tuple[Path, Explanations]:
    """A finished study, of an older version, with explanations of its best trial's worst mistakes."""
    results = tmp_path / "results"
    shutil.copytree(FIXTURE, results)
    done = run("explain", "small", "--results", results, "--method", "integrated-gradients", "--json")
    assert done.code == 0, done.err
    found = read_model(place(results), Explanations)
    assert found is not None and len(found.explanations) == len(json.loads(done.out))
    return results, found


def test_the_worst_mistakes_of_a_trial_are_kept_and_reported(kept: tuple[Path, Explanations]) -> None:
    results, found = kept
    study = StudyDir(results, "small")
    mistakes = json.loads((place(results).parent / "validation.json").read_text())["worst"]
    for one, wrong in zip(found.explanations, mistakes, strict=True):
        assert (one.image, one.label) == (f"validation {wrong['index']}", wrong["label"])
        assert one.predicted == wrong["predicted"] == one.target
        assert one.probability == pytest.approx(wrong["probability"], abs=1e-3)
        assert one.picture.height == one.maps[0].height
        assert len(one.nearest) == 5
    facts = gather(results, study)
    (arm,) = facts.explanations
    section = sections_explanations.explanations(facts)
    assert section is not None and section.blocks[-1].pictures[0].name == f"explained-{arm}"
    few = found.explanations[:2]
    names = found.classes
    drawn = [plots_explanations.explained(few[0], names), plots_explanations.table(few, names)]
    assert all(as_png(picture).startswith(b"\x89PNG") for picture in drawn)


def test_explanations_of_other_weights_or_damaged_ones_are_left_out(kept: tuple[Path, Explanations]) -> None:
    results, found = kept
    study = StudyDir(results, "small")
    path = place(results)
    for content in (found.model_copy(update={"artifact_sha256": "0" * 64}).model_dump_json(), "{", "[]"):
        path.write_text(content)
        assert not gather(results, study).explanations
        assert sections_explanations.explanations(gather(results, study)) is None
