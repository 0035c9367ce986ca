"""Exports of trained models: what a folder holds, and that it gives the trained model back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from suite.data.datasets import validation_files
from suite.errors import InputError
from suite.export import publish
from suite.export.card import CARD, WEIGHTS, read_card
from suite.export.loading import load
from suite.export.predict import Predictor
from suite.export.publish import export
from suite.export.snippets import load_line
from suite.models.assembly import load_trained
from suite.models.heads import HEADS, is_linear
from suite.store.files import file_sha256
from suite.store.study import StudyDir

if TYPE_CHECKING:
    from tests.export.conftest import Own

KINDS = {head: head.model_fields["kind"].default for head in HEADS}


def trial_of(study: StudyDir, arm: str) -> str:
    return next(state.id for state in study.states() if state.trial.arm == arm)


@pytest.mark.parametrize(
    ("arm", "head", "timm_loads"),
    [
        ("whole", None, False),
        ("native", None, True),
        *((kind, None if is_linear(head()) else kind, False) for head, kind in KINDS.items()),
    ],
)
def test_an_export_gives_the_trained_model_back(
    arm: str, head: str | None, timm_loads: bool, study: StudyDir, tmp_path: Path
) -> None:
    """By `suite.export.load`, and where the card says so by timm alone."""
    results, trial_id = study.path.parent, trial_of(study, arm)
    done = export(results, f"small/{trial_id}", tmp_path / "model")
    files = {CARD, WEIGHTS, "README.md"} | ({"config.json"} if timm_loads else set())
    assert {path.name for path in (tmp_path / "model").iterdir()} == files

    card, directory = read_card(tmp_path / "model"), study.trial(trial_id)
    trial, record = directory.trial(), directory.record()
    assert trial is not None and record is not None
    assert (card.head.kind if card.head else None) == head
    assert card.timm == done["timm"] == timm_loads
    assert card.trial == done["trial"] == f"small/{trial_id}"
    assert card.accuracy == done["accuracy"] == record.accuracy
    assert card.sha256 == done["sha256"] == file_sha256(tmp_path / "model" / WEIGHTS)
    assert done["load"] == load_line(card, f"{tmp_path}/model")
    assert load_line(card, "model") in (tmp_path / "model" / "README.md").read_text()

    assert card.checked_on == "validation pictures"
    assert (card.agreement is not None) == timm_loads
    expects = card.preprocess
    inputs = torch.rand(8, expects.channels, expects.size, expects.size)
    with torch.inference_mode():
        expected = load_trained(directory, trial, expects, 10, results).model(inputs)
        assert torch.allclose(load(tmp_path / "model")(inputs), expected, atol=1e-5)
        if timm_loads:
            import timm

            theirs = timm.create_model(f"local-dir:{tmp_path}/model", pretrained=True).eval()
            assert torch.allclose(theirs(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("arm", ["net", "timm"])
def test_a_model_predicts_its_validation_files_as_it_was_evaluated(arm: str, own: Own, models: dict[str, Path]) -> None:
    """The one promise: the figure of the leaderboard is the figure that a person gets from the files."""
    record = own.study.trial(own.trial(arm)).record()
    assert record is not None
    files, labels, _ = validation_files(f"folder:{own.pictures}")
    predictor = Predictor(models[arm])
    answers = [prediction.answer for prediction in predictor.files(files)]
    right = sum(a["label"] == predictor.card.classes[label] for a, label in zip(answers, labels, strict=True))
    wanted = record.accuracy if record.accuracy_fp32 is None else record.accuracy_fp32
    assert right / len(files) == pytest.approx(wanted)


@pytest.mark.parametrize("arm", ["net", "timm"])
def test_the_lines_of_the_readme_answer_as_predict_does(
    arm: str, own: Own, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a file to a label, by the suite and by timm alone."""
    monkeypatch.chdir(models[arm].parent)
    text = (models[arm] / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == (2 if arm == "timm" else 1)
    predictor = Predictor(models[arm])
    for path in sorted(own.pictures.rglob("*.png"))[::6]:
        wanted = predictor.file(path)["label"]
        for snippet in snippets:
            exec(snippet.replace('"picture.png"', repr(str(path))), {})
            assert capsys.readouterr().out.split()[0] == wanted


def test_the_answers_of_timms_own_transform_are_compared(models: dict[str, Path]) -> None:
    card = read_card(models["timm"])
    assert card.timm and card.agreement is not None
    assert card.agreement.pictures >= 3 and card.agreement.equal == 1 and card.agreement.logits < 0.5
    config = json.loads((models["timm"] / "config.json").read_text())["pretrained_cfg"]
    assert config["input_size"] == [3, 48, 48] and config["crop_mode"] == "center"
    assert config["crop_pct"] == card.preprocess.crop_share and config["mean"] == list(card.preprocess.mean)


def test_a_model_that_timm_would_feed_otherwise_is_not_offered_to_timm(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "EQUAL", 1.01)
    done = export(own.study.path.parent, f"own/{own.trial('timm')}", tmp_path / "model")
    assert not done["timm"] and not (tmp_path / "model" / "config.json").exists()
    assert "not offered to timm" in (tmp_path / "model" / "README.md").read_text()
    assert read_card(tmp_path / "model").agreement is not None
    load(tmp_path / "model")


@pytest.mark.parametrize("arm", ["net", "timm"])
def test_the_pictures_need_not_be_there(own: Own, models: dict[str, Path], arm: str, tmp_path: Path) -> None:
    shutil.copytree(own.study.path, tmp_path / "results" / "own")
    away = own.pictures.with_name("away")
    own.pictures.rename(away)
    try:
        export(tmp_path / "results", f"own/{own.trial(arm)}", tmp_path / "model")
    finally:
        away.rename(own.pictures)
    here, there = read_card(models[arm]), read_card(tmp_path / "model")
    assert there.checked_on == "random pictures" and there.agreement is None
    assert "random pictures" in (tmp_path / "model" / "README.md").read_text()
    assert there == here.model_copy(update={"checked_on": "random pictures", "agreement": None})


def test_pictures_that_have_changed_are_not_compared(own: Own, tmp_path: Path) -> None:
    extra = own.pictures / "z" / "extra.png"
    shutil.copy(next(own.pictures.rglob("*.png")), extra)
    try:
        done = export(own.study.path.parent, f"own/{own.trial('net')}", tmp_path / "model")
    finally:
        extra.unlink()
    assert done["checked_on"] == "random pictures"


def test_a_data_set_that_is_not_cached_is_not_fetched(
    study: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    done = export(study.path.parent, f"small/{trial_of(study, 'whole')}", tmp_path / "model")
    assert done["checked_on"] == "random pictures"
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_starting_weights_are_needed_for_heads_on_frozen_features_alone(study: StudyDir, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(study.path.parent, results)
    source = study.trial(trial_of(study, "linear")).trial()
    assert source is not None and source.weights is not None
    shutil.rmtree(results / source.weights.source.split("/")[0])
    export(results, f"small/{trial_of(study, 'whole')}", tmp_path / "whole")
    with pytest.raises(InputError, match="head on frozen features of net") as refused:
        export(results, f"small/{trial_of(study, 'linear')}", tmp_path / "head")
    assert source.weights.source in str(refused.value) and str(source.weights.sha256) in str(refused.value)
    assert not (tmp_path / "head").exists()


def test_a_folder_in_use_is_refused_and_left_alone(
    study: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="already holds something"):
            export(study.path.parent, "small", target)
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match="folder you are in"):
        export(study.path.parent, "small", tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "notes.txt"]


def test_a_trial_with_damaged_weights_leaves_nothing_behind(study: StudyDir, tmp_path: Path) -> None:
    shutil.copytree(study.path, tmp_path / "results" / "small")
    copy = StudyDir(tmp_path / "results", "small")
    trial_id = trial_of(copy, "whole")
    artifact = copy.trial(trial_id).path / "best.safetensors"
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        export(tmp_path / "results", f"small/{trial_id}", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
