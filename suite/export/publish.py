"""Publishing a trained model, and using one that was published.

An export is a folder: model.safetensors, mnist-suite.json (what the model is and expects), README.md (its card)
and, where timm can build it, timm's config.json. It is read back and compared before it appears.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.datasets import search_splits
from suite.errors import InputError, WorkError, printable
from suite.export.card import CARD, SAMPLE, WEIGHTS, Card, card_text, load_line, timm_config
from suite.export.predict import load
from suite.models import backbones
from suite.models.assembly import load_trained
from suite.models.preprocessing import Preprocess, evaluation_preparer
from suite.ranking.statistics import wilson
from suite.spec import (
    HeadOnly,
    Linear,
    Logreg,
    Ridge,
)
from suite.store.files import sync_directory, write_atomic
from suite.store.study import find_trial, open_study, split_reference
from suite.training.checkpoint import save_tensors


def export(results: Path, reference: str | None, to: Path) -> dict[str, Any]:
    """Write the referenced trial's best model to `to`; returns what to tell the user. Raises InputError, WorkError."""
    study_name, trial_id = split_reference(reference) if reference else (None, None)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    directory = study.trial(state.id)
    trial = state.trial
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} already holds something; name a new or empty folder with --to DIR.")
    if os.path.realpath(to) == os.getcwd():  # `resolve` breaks on a loop of links
        raise InputError("The folder you are in cannot be replaced; name a new one with --to DIR.")
    splits = search_splits(trial.dataset, fraction=trial.fraction, limit=trial.limit)
    assembled = load_trained(directory, trial, splits.info, results)
    model, expects = assembled.model, assembled.expects
    record = directory.record()
    assert record is not None and record.accuracy is not None

    to.parent.mkdir(parents=True, exist_ok=True)
    building = to.parent / f".{to.name}.{secrets.token_hex(4)}.tmp"
    building.mkdir()
    try:
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        digest = save_tensors(building / WEIGHTS, tensors, {"format": "pt"})
        plain = not isinstance(trial.strategy, HeadOnly) or isinstance(trial.strategy.head, Linear | Ridge | Logreg)
        timm_loads = trial.backbone.startswith(backbones.TIMM) and plain
        card = Card(
            backbone=trial.backbone,
            head=None if plain or not isinstance(trial.strategy, HeadOnly) else trial.strategy.head,
            dataset=trial.dataset,
            classes=splits.info.classes,
            channels=expects.channels,
            native_size=splits.info.size,
            size=expects.size,
            mean=expects.mean,
            std=expects.std,
            interpolation=expects.interpolation,
            trial=f"{study.name}/{state.id}",
            strategy=trial.strategy.kind,
            accuracy=record.accuracy,
            interval=wilson(record.accuracy, record.images),
            images=record.images,
            sha256=digest,
            timm=timm_loads,
            cost=record.cost,
            provenance=record.provenance,
        )
        write_atomic(building / CARD, card.model_dump_json(indent=1) + "\n")
        if timm_loads:
            timm_config(model, building, card)
        _check(building, model, expects, torch.from_numpy(splits.validation.images[:SAMPLE]), timm_loads)
        write_atomic(building / "README.md", card_text(card, trial, printable(to.name)))
        for path in building.iterdir():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        sync_directory(building)
        if to.exists():
            to.rmdir()
        os.rename(building, to)
        sync_directory(to.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return {
        "trial": card.trial,
        "folder": str(to),
        "accuracy": card.accuracy,
        "sha256": digest,
        "timm": timm_loads,
        "load": load_line(card, str(to)),
    }


@torch.inference_mode()
def _check(folder: Path, model: nn.Module, expects: Preprocess, images: Tensor, timm_loads: bool) -> None:
    """Read the folder back every promised way; the logits must be those of the trained model."""
    inputs = evaluation_preparer(expects, torch.device("cpu"))(images)
    wanted = model.eval()(inputs)
    readers = {"suite.export.load": lambda: load(folder)}
    if timm_loads:
        import timm

        readers["timm.create_model"] = lambda: timm.create_model(f"local-dir:{folder}", pretrained=True)
    for name, reader in readers.items():
        got = reader().eval()(inputs)
        if not torch.allclose(got, wanted, rtol=1e-4, atol=1e-4):
            worst = (got - wanted).abs().max().item()
            raise WorkError(f"The export was not published: read back by {name}, logits differ by up to {worst:.2g}.")
