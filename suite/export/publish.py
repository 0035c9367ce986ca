"""Export of a trained model to a folder.

The folder holds model.safetensors, mnist-suite.json (`suite.export.card`) and README.md (`suite.export.readme`), and
config.json where timm can load the model. It is written under a temporary name, read back and compared with the
trained model (`suite.export.checks`), and then renamed, so that it never appears incomplete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from suite.data.datasets import info
from suite.errors import InputError, printable
from suite.export.card import CARD, WEIGHTS, Card
from suite.export.checks import EQUAL, Pictures, agreement, check, pictures
from suite.export.readme import card_text, load_line
from suite.models import backbones
from suite.models.assembly import load_trained
from suite.models.backbones import TIMM
from suite.models.classifiers import holds_linear
from suite.models.heads import is_linear
from suite.models.preprocessing import of_trial
from suite.ranking.leaderboard import parent_of
from suite.ranking.statistics import wilson
from suite.spec import HeadOnly, HeadSpec, Int8, Preprocess, Record, Trial
from suite.store.files import sync_directory, write_atomic
from suite.store.outputs import check_new_folder, writing
from suite.store.study import StudyDir, find_trial, open_study, split_reference
from suite.training.checkpoint import save_tensors

TIMM_CONFIG = "config.json"  # the name that timm expects


def export(results: Path, reference: str | None, to: Path) -> dict[str, Any]:
    """Write a trial's best model to the folder `to`.

    Neither the data set nor the weights that the trial started from need to be there, but for the weights of a
    backbone whose features a head was trained on.

    Args:
        results: the results directory.
        reference: "STUDY" for the study's best trial by validation accuracy, "STUDY/TRIAL" for one trial, or None
            for the best of the newest study.
        to: a folder that does not exist or is empty.

    Returns:
        `trial`, `folder`, `accuracy` (on validation), `sha256` (of the weights), `timm` (whether timm can load it),
        `checked_on` and `agreement` (see `Card`), and `load` (the Python expression that loads it).

    Raises:
        InputError: there is no such trial, or `to` cannot be used.
        WorkError: the model read back from the folder differs from the trained one; nothing is left behind.
    """
    study_name, trial_id = split_reference(reference) if reference else (None, None)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    directory, trial = study.trial(state.id), state.trial
    check_new_folder(to)
    if isinstance(trial.strategy, Int8):
        raise InputError(
            f"Trial {study.name}/{state.id} holds integers alone, for the figures of its row. Export the trial that it "
            f"was made from, in that format: mnist-suite export {parent_of(state)} --format int8 --to {to}."
        )
    expects = trial.preprocess or of_trial(trial, info(trial.dataset))
    classes = _classes(study, trial)
    assembled = load_trained(directory, trial, expects, len(classes), results)
    record = directory.record()
    assert record is not None  # load_trained has checked it

    given = pictures(trial, expects)
    target = Path(os.path.realpath(to))  # `to` may be a link to an empty folder
    building = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    with writing(to):
        target.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir()
        try:
            sha256 = save_tensors(building / WEIGHTS, assembled.model.state_dict(), {"format": "pt"})
            card = _card(trial, record, classes, expects, f"{study.name}/{state.id}", sha256)
            card = _checked(building, card, assembled.model, given)
            write_card(building, card)
            write_atomic(building / "README.md", card_text(card, trial, printable(to.name)))
            _rename_into_place(building, target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return {
        "trial": card.trial,
        "folder": str(to),
        "accuracy": card.accuracy,
        "sha256": card.sha256,
        "timm": card.timm,
        "checked_on": card.checked_on,
        "agreement": card.agreement.model_dump() if card.agreement else None,
        "load": load_line(card, str(to)),
    }


def _classes(study: StudyDir, trial: Trial) -> tuple[str, ...]:
    file = study.study()
    if file is not None and file.experiment.dataset == trial.dataset:
        return file.classes
    return info(trial.dataset).classes


def _card(trial: Trial, record: Record, classes: tuple[str, ...], expects: Preprocess, name: str, sha256: str) -> Card:
    head = _separate_head(trial, expects, len(classes))
    assert record.accuracy is not None  # a finished trial has one
    return Card(
        backbone=trial.backbone,
        head=head,
        dataset=trial.dataset,
        classes=classes,
        preprocess=expects,
        trial=name,
        strategy=trial.strategy.kind,
        reshaped=trial.reshaped,
        accuracy=record.accuracy,
        interval=wilson(record.accuracy, record.images),
        accuracy_fp32=record.accuracy_fp32,
        images=record.images,
        sha256=sha256,
        timm=trial.backbone.startswith(TIMM) and head is None and not trial.reshaped,
        cost=record.cost,
        provenance=record.provenance,
    )


def _checked(folder: Path, card: Card, model: nn.Module, given: Pictures) -> Card:
    """The card with what the checks of the folder have found. Raises WorkError.

    The folder is not offered to timm where its transform gives other labels.
    """
    card = card.model_copy(update={"checked_on": "validation pictures" if given.plain else "random pictures"})
    write_card(folder, card)
    if card.timm:
        write_timm_config(folder, model, card)
    expected = check(folder, model, card.preprocess, given.stored, timm_loads=card.timm)
    if not card.timm:
        return card
    found = agreement(folder, given, expected, card.preprocess)
    if found is not None and found.equal < EQUAL:
        (folder / TIMM_CONFIG).unlink()
        return card.model_copy(update={"timm": False, "agreement": found})
    return card.model_copy(update={"agreement": found})


def write_card(folder: Path, card: Card) -> None:
    write_atomic(folder / CARD, card.model_dump_json(indent=1) + "\n")


def _separate_head(trial: Trial, expects: Preprocess, classes: int) -> HeadSpec | None:
    """The head that replaces the backbone's classifier; None where the classifier holds its weights."""
    if not isinstance(trial.strategy, HeadOnly):
        return None
    body = backbones.sketch(trial.backbone, classes=classes, channels=expects.channels, size=expects.size)
    return None if is_linear(trial.strategy.head) and holds_linear(body) else trial.strategy.head


def write_timm_config(folder: Path, model: nn.Module, card: Card) -> None:
    """The config.json that timm.create_model("local-dir:...") reads."""
    from timm.models._hub import save_config_for_hf

    expects = card.preprocess
    save_config_for_hf(
        model,
        str(folder / TIMM_CONFIG),
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
