"""Export of a trained model to a folder.

The folder holds model.safetensors, mnist-suite.json and README.md (see `suite.export.card`), and config.json where
timm can load the model. It is written under a temporary name, read back and compared with the trained model, and then
renamed, so that it never appears incomplete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.datasets import describe, search_splits
from suite.data.splits import Info
from suite.errors import InputError, WorkError, printable
from suite.export.card import CARD, WEIGHTS, Card, card_text, load_line
from suite.export.predict import load
from suite.models.assembly import load_trained
from suite.models.backbones import TIMM
from suite.models.heads import is_linear
from suite.models.preprocessing import evaluation_preparer, of_trial
from suite.ranking.statistics import wilson
from suite.spec import HeadOnly, HeadSpec, Preprocess, Record, Trial
from suite.store.files import sync_directory, write_atomic
from suite.store.study import find_trial, open_study, split_reference
from suite.training.checkpoint import save_tensors

COMPARED = 64  # validation images on which the exported model must give the trained model's logits


def export(results: Path, reference: str | None, to: Path) -> dict[str, Any]:
    """Write a trial's best model to the folder `to`.

    Args:
        results: the results directory.
        reference: "STUDY" for the study's best trial by validation accuracy, "STUDY/TRIAL" for one trial, or None
            for the best of the newest study.
        to: a folder that does not exist or is empty.

    Returns:
        `trial`, `folder`, `accuracy` (on validation), `sha256` (of the weights), `timm` (whether timm can load it)
        and `load` (the Python expression that loads it).

    Raises:
        InputError: there is no such trial, or `to` cannot be used.
        WorkError: the model read back from the folder differs from the trained one; nothing is left behind.
    """
    study_name, trial_id = split_reference(reference) if reference else (None, None)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    directory, trial = study.trial(state.id), state.trial
    _refuse_used_folder(to)
    known = describe(trial.dataset, fraction=trial.fraction, limit=trial.limit).info
    expects = of_trial(trial, known)
    assembled = load_trained(directory, trial, expects, len(known.classes), results)
    record = directory.record()
    assert record is not None  # load_trained has checked it

    to.parent.mkdir(parents=True, exist_ok=True)
    building = to.parent / f".{to.name}.{secrets.token_hex(4)}.tmp"
    building.mkdir()
    try:
        weights = {name: tensor.contiguous() for name, tensor in assembled.model.state_dict().items()}
        sha256 = save_tensors(building / WEIGHTS, weights, {"format": "pt"})
        card = _card(trial, record, known, expects, f"{study.name}/{state.id}", sha256)
        write_atomic(building / CARD, card.model_dump_json(indent=1) + "\n")
        if card.timm:
            _write_timm_config(building, assembled.model, card)
        validation = search_splits(
            trial.dataset, fraction=trial.fraction, limit=trial.limit, view=expects.view()
        ).validation
        images = torch.from_numpy(validation.images[:COMPARED])
        _check(building, assembled.model, expects, images, card.timm)
        write_atomic(building / "README.md", card_text(card, trial, printable(to.name)))
        _rename_into_place(building, to)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return {
        "trial": card.trial,
        "folder": str(to),
        "accuracy": card.accuracy,
        "sha256": card.sha256,
        "timm": card.timm,
        "load": load_line(card, str(to)),
    }


def _refuse_used_folder(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} already holds something; name a new or empty folder with --to DIR.")
    if os.path.realpath(to) == os.getcwd():  # Path.resolve raises on a loop of links
        raise InputError("The folder you are in cannot be replaced; name a new one with --to DIR.")


def _card(trial: Trial, record: Record, info: Info, expects: Preprocess, name: str, sha256: str) -> Card:
    head = _separate_head(trial)
    assert record.accuracy is not None  # a finished trial has one
    return Card(
        backbone=trial.backbone,
        head=head,
        dataset=trial.dataset,
        classes=info.classes,
        preprocess=expects,
        trial=name,
        strategy=trial.strategy.kind,
        accuracy=record.accuracy,
        interval=wilson(record.accuracy, record.images),
        images=record.images,
        sha256=sha256,
        timm=trial.backbone.startswith(TIMM) and head is None,
        cost=record.cost,
        provenance=record.provenance,
    )


def _separate_head(trial: Trial) -> HeadSpec | None:
    """The head that replaces the backbone's classifier; None where the result is one linear layer all the same."""
    if not isinstance(trial.strategy, HeadOnly) or is_linear(trial.strategy.head):
        return None
    return trial.strategy.head


def _write_timm_config(folder: Path, model: nn.Module, card: Card) -> None:
    """The config.json that timm.create_model("local-dir:...") reads."""
    from timm.models._hub import save_config_for_hf

    expects = card.preprocess
    save_config_for_hf(
        model,
        str(folder / "config.json"),
        model_config={"num_classes": len(card.classes), "label_names": list(card.classes)},
        data_config={
            "input_size": expects.shape,
            "mean": expects.mean,
            "std": expects.std,
            "interpolation": expects.view().interpolation,
            "crop_pct": expects.crop_share,
            "crop_mode": {"crop": "center", "pad": "border", "squeeze": "squash"}[expects.fit],
        },
    )


@torch.inference_mode()
def _check(folder: Path, model: nn.Module, expects: Preprocess, images: Tensor, timm_loads: bool) -> None:
    """Load the folder in every way that its card promises, and compare the logits. Raises WorkError."""
    inputs = evaluation_preparer(expects, torch.device("cpu"))(images)
    expected = model.eval()(inputs)
    loaders: dict[str, Callable[[], nn.Module]] = {"suite.export.load": lambda: load(folder)}
    if timm_loads:
        import timm

        loaders["timm.create_model"] = lambda: timm.create_model(f"local-dir:{folder}", pretrained=True)
    for name, load_model in loaders.items():
        logits = load_model().eval()(inputs)
        if not torch.allclose(logits, expected, rtol=1e-4, atol=1e-4):
            worst = (logits - expected).abs().max().item()
            raise WorkError(f"The export was not published: read back by {name}, logits differ by up to {worst:.2g}.")


def _rename_into_place(building: Path, to: Path) -> None:
    """Make the folder visible under its final name, once all of it is on the disk."""
    for path in building.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    sync_directory(building)
    if to.exists():
        to.rmdir()
    os.rename(building, to)
    sync_directory(to.parent)
