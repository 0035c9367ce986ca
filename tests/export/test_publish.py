"""Exports of trained models: what a folder holds, and that it gives the trained model back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.export.card import CARD, WEIGHTS, load_line, read_card
from suite.export.predict import load
from suite.export.publish import export
from suite.models.assembly import load_trained
from suite.models.heads import HEADS, is_linear
from suite.spec import Arm, Experiment, HeadOnly, Recipe
from suite.store.files import file_sha256
from suite.store.study import StudyDir

KINDS = {head: head.model_fields["kind"].default for head in HEADS}


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory,
    made: Callable[..., Experiment],
    search: Callable[[Experiment, Path], StudyDir],
) -> StudyDir:
    """One finished trial each: a whole network, heads that stay linear, heads that do not, and a model of timm's."""
    recipe = Recipe(epochs=1, batch_size=50, lr=0.05)
    heads = {kind: head() for head, kind in KINDS.items()}
    arms = {
        "whole": Arm(backbone="net", recipe=recipe),
        "timm": Arm(backbone="timm:test_vit", size=32, recipe=recipe),
        **{
            name: Arm(backbone="net", strategy=HeadOnly(head=head), weights="experiment", recipe=recipe)
            for name, head in heads.items()
        },
    }
    experiment = made(trials=len(arms)).model_copy(update={"arms": arms, "space": {}, "pruning": None})
    return search(experiment, tmp_path_factory.mktemp("export") / "results")


def trial_of(study: StudyDir, arm: str) -> str:
    return next(state.id for state in study.states() if state.trial.arm == arm)


@pytest.mark.parametrize(
    ("arm", "head", "timm_loads"),
    [
        ("whole", None, False),
        ("timm", None, True),
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

    splits = search_splits("mnist", limit=trial.limit)
    inputs = torch.rand(8, card.channels, card.size, card.size)
    with torch.inference_mode():
        expected = load_trained(directory, trial, splits.info, results).model(inputs)
        assert torch.allclose(load(tmp_path / "model")(inputs), expected, atol=1e-5)
        if timm_loads:
            import timm

            theirs = timm.create_model(f"local-dir:{tmp_path}/model", pretrained=True).eval()
            assert torch.allclose(theirs(inputs), expected, atol=1e-5)


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
