"""Robustness of real models: measured, stored, shown, and the test images kept apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import suite
from suite.data import datasets
from suite.data.corruptions import CORRUPTIONS, corrupted
from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.evaluation import final, reading, shift
from suite.export.loading import load
from suite.export.publish import export
from suite.models.preprocessing import evaluation_preparer
from suite.ranking.final import readings
from suite.ranking.gains import board
from suite.ranking.leaderboard import text
from suite.ranking.shift import SHIFT_FILE, Shift, shifts
from suite.reporting.facts import gather
from suite.reporting.plots_style import as_png
from suite.reporting.sections_shift import shift as section
from suite.spec import Preprocess
from suite.store.study import StudyDir, final_of, find_trial
from suite.training.evaluation import Examples

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def study(small: Any, tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    results = tmp_path_factory.mktemp("shift") / "results"
    shutil.copytree(small.results, results)
    return StudyDir(results, "small")


@pytest.fixture(scope="module")
def found(study: StudyDir) -> list[Shift]:
    steps: list[tuple[int, int]] = []
    subjects = shift.on_validation(study.path.parent, study, None, limit=60, place="cpu")
    measured = shift.measure(subjects, study, on_step=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == [*range(38), *range(38, 77)] and {total for _, total in steps} == {76}
    return measured


def test_the_best_trial_of_each_arm_is_measured(study: StudyDir, found: list[Shift]) -> None:
    assert {one.arm for one in found} == {"net-scratch", "net-head"}
    for one in found:
        own = [s.best or 0.0 for s in study.states() if s.trial.arm == one.arm and s.state == "finished"]
        assert find_trial(study, one.trial).best == max(own)
        assert (one.images, one.classes, one.part, one.run) == (60, 10, "validation", None)
        assert {kind.name for kind in one.corruptions} == set(CORRUPTIONS)
        assert {"DejaVu Sans Book", "cmr10 Regular"} <= {font.name for font in one.fonts}
        assert one.interval[0] <= one.mean <= one.interval[1]
    assert shifts(study) == {one.trial: one for one in found}


def test_the_figures_are_those_of_the_exported_model(study: StudyDir, found: list[Shift], tmp_path: Path) -> None:
    one = next(one for one in found if one.arm == "net-head")
    export(study.path.parent, f"small/{one.trial}", tmp_path / "model")
    model, validation = load(tmp_path / "model"), search_splits("mnist", limit=60).validation
    trial = find_trial(study, one.trial).trial
    assert trial.preprocess is not None
    prepare = evaluation_preparer(trial.preprocess, CPU)

    @torch.inference_mode()
    def right(images: torch.Tensor) -> torch.Tensor:
        return model(prepare(images)).argmax(1) == torch.from_numpy(validation.labels)

    images = torch.from_numpy(validation.images)
    clean = right(images)
    assert one.right == clean.sum()
    for kind in one.corruptions[::3]:
        for level in kind.levels:
            hit = right(corrupted(images, kind.name, level.level))
            assert (level.right, level.lost, level.gained) == (hit.sum(), (clean & ~hit).sum(), (hit & ~clean).sum())


def test_a_repeat_gives_the_same_line(study: StudyDir, found: list[Shift], tmp_path: Path) -> None:
    """After a kill the command is given again; a line that was torn by it is left out."""
    results = tmp_path / "results"
    shutil.copytree(study.path.parent, results)
    again = StudyDir(results, "small")
    path = again.path / SHIFT_FILE
    lines = [line for line in path.read_bytes().splitlines() if line]
    path.write_bytes(lines[0] + b"\n" + lines[1][: len(lines[1]) // 2])
    assert len(shifts(again)) == 1
    number = str(find_trial(again, found[1].trial).trial.number)
    shift.measure(shift.on_validation(results, again, number, limit=60, place="cpu"), again)
    assert path.read_bytes().splitlines()[-1] == lines[1]
    assert shifts(again) == shifts(study)


def test_the_leaderboard_and_the_report_show_it(study: StudyDir, found: list[Shift]) -> None:
    rows = {row.trial: row for row in board(study)}
    for one in found:
        row = rows.pop(one.trial)
        assert one.font_accuracy is not None
        assert (row.shift, row.fonts) == (one.mean, one.font_accuracy.value)
        assert text(row, "shift") == f"{100 * one.mean:.2f}%"
    assert all(row.shift is None and text(row, "fonts") == "-" for row in rows.values())
    shown = section(gather(study.path.parent, study))
    assert shown is not None
    tables = [block for block in shown.blocks if block.kind == "table"]
    (gallery,) = [block for block in shown.blocks if block.kind == "gallery"]
    assert len(tables[0].rows) == 2 and len(tables[1].rows) == 36  # type: ignore[union-attr]
    assert as_png(gallery.pictures[0].draw()).startswith(b"\x89PNG")  # type: ignore[union-attr]


# --- the test images ------------------------------------------------------------------------------------------------


def test_only_the_robustness_of_tested_models_asks_for_test_images_beside_the_final_evaluation() -> None:
    root = Path(suite.__file__).parent
    asking = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if "test_images(" in path.read_text()}
    assert asking == {"evaluation/reading.py", "evaluation/shift.py"}


def test_test_images_need_a_final_evaluation_and_are_counted_as_read(
    study: StudyDir, found: list[Shift], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    shutil.copytree(study.path.parent, results)
    own = StudyDir(results, "small")
    monkeypatch.setattr(reading, "test_split", lambda *given: _first(datasets.test_split(*given), 50))
    tested = final.plan(results, own, top=1, seeds=2, place="cpu").chosen
    untested = next(s for s in own.states() if s.id not in {t.id for t in tested})
    with pytest.raises(InputError, match="was not tested"):
        shift.on_test(results, own, untested.id, command="c", place="cpu")
    assert len(readings(own)) == 1
    subjects = shift.on_test(results, own, tested[0].id, command="the command", place="cpu")
    assert [(r.command, r.models) for r in readings(own)][1:] == [("the command", (subjects[0].run,))]
    (one,) = shift.measure(subjects, own)
    assert (one.part, one.trial, one.run, one.images) == ("test", tested[0].id, subjects[0].run, 50)
    assert one.run in {state.id for state in final_of(own).states()}
    again = shift.on_test(results, own, tested[0].id, command="again", place="cpu")
    assert shift.measure(again, own) == [one] and len(readings(own)) == 2
    assert shifts(own) == shifts(study)  # nothing of it stands on the leaderboard
    shown = section(gather(results, own))
    assert shown is not None and sum(block.kind == "gallery" for block in shown.blocks) == 2
    shutil.rmtree(own.path / "final")
    with pytest.raises(InputError, match="no final evaluation yet"):
        shift.on_test(results, own, None, command="c")


def _first(whole: Any, count: int) -> Any:
    return type(whole)(whole.images[:count], whole.labels[:count])


# --- other pictures, other ways -------------------------------------------------------------------------------------


def test_photos_get_what_makes_sense_for_them() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))[:, :2]

    expects = Preprocess(channels=3, size=32, stored=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = torch.randint(256, (24, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    examples = Examples(images, torch.zeros(24, dtype=torch.long))
    subject = shift.Subject(
        trial="0000-00000000",
        arm="mean",
        weights_sha256=None,
        dataset="folder:/photos",
        part="validation",
        classes=("a", "b"),
        expects=expects,
        model=Mean(),
        examples=examples,
        where=CPU,
    )
    (one,) = shift.measure([subject], None)
    assert {kind.name for kind in one.corruptions} == set(CORRUPTIONS) - {"thickness"}
    assert one.fonts == () and subject.edge == "border"
    brightness = next(kind for kind in one.corruptions if kind.name == "brightness")
    assert brightness.levels[0].lost + brightness.levels[0].gained <= 6  # the same is added to every channel


def test_the_command_on_a_study_and_on_an_export(study: StudyDir, tmp_path: Path, suite: Callable[..., Any]) -> None:
    (number,) = {str(s.trial.number) for s in study.states() if s.id == find_trial(study, None).id}
    places = ("--results", study.path.parent)
    shown = suite("evaluate", f"small/{number}", "--shift", "--limit", "40", "--device", "cpu", *places)
    assert shown.returncode == 0, shown.stderr
    assert "rotation" in shown.stdout and "45 degrees" in shown.stdout and "fonts:" in shown.stdout
    assert "--sort shift" in shown.stdout
    kept = (study.path / SHIFT_FILE).read_bytes()
    export(study.path.parent, f"small/{number}", tmp_path / "model")
    told = suite("evaluate", "model", "--shift", "--limit", "40", "--device", "cpu", "--json")
    assert told.returncode == 0, told.stderr
    (one,) = json.loads(told.stdout)
    assert f"{100 * one['mean']['value']:.2f}% over the corruptions" in shown.stdout
    assert (study.path / SHIFT_FILE).read_bytes() == kept
