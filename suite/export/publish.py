"""Export of a trained model to a folder.

The folder holds model.safetensors, mnist-suite.json (`suite.export.card`) and README.md (`suite.export.readme`),
config.json where timm can load the model, and the files of other formats (`suite.export.formats`). It is written under
a temporary name, read back and compared with the trained model (`suite.export.checks`), and then renamed, so that it
never appears incomplete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from suite.errors import InputError, printable
from suite.export.card import CARD, FILES, WEIGHTS, Card
from suite.export.checks import EQUAL, Pictures, agreement, check, pictures
from suite.export.ensemble import Say, Wanted, build, silent
from suite.export.formats import write_formats
from suite.export.readme import card_text
from suite.export.snippets import load_line
from suite.export.trained import Trained, trained
from suite.models.backbones import TIMM
from suite.ranking.statistics import wilson
from suite.spec import Format, Trial
from suite.store.exports import write_exports
from suite.store.files import sync_directory, write_atomic
from suite.store.outputs import check_new_folder, writing
from suite.store.study import find_trial, open_study, split_reference
from suite.training.checkpoint import save_tensors

TIMM_CONFIG = "config.json"  # the name that timm expects


def export(
    results: Path,
    reference: str | None,
    to: Path,
    formats: Sequence[str] = (),
    say: Say = silent,
) -> dict[str, Any]:
    """Write a trial's best model to the folder `to`.

    Neither the data set nor the weights that the trial started from need to be there, but for the weights of a
    backbone whose features a head was trained on, and training pictures for int8.

    Args:
        results: the results directory.
        reference: "STUDY" for the study's best trial by validation accuracy, "STUDY/TRIAL" for one trial, or None
            for the best of the newest study.
        to: a folder that does not exist or is empty.
        formats: names of `card.FILES` to write beside safetensors, which is always written.
        say: is told what begins, where it may take seconds.

    Returns:
        `trial`, `folder`, `accuracy` (on validation), `sha256` (of the weights), `timm` (whether timm can load it),
        `checked_on`, `agreement` and `formats` (see `Card`), `load` (the Python expression that loads it), and
        `recorded` (whether the study has the figures of `formats` now; a study that cannot be written has not).

    Raises:
        InputError: there is no such trial or format, `to` cannot be used, a library is missing, or the model cannot be
            converted.
        WorkError: the model read back from the folder differs from the trained one; nothing is left behind.
    """
    wanted = _known(formats)
    study_name, trial_id = split_reference(reference) if reference else (None, None)
    study = open_study(results, study_name)
    one = trained(study, find_trial(study, trial_id))
    check_new_folder(to)
    card = publish(to, one.load(results), _card(one), [one.trial], wanted, say)
    recorded = bool(card.formats)
    try:
        write_exports(study, one.directory.id, card.formats)
    except OSError:  # the results of somebody else
        recorded = False
    return _told(card, to) | {"recorded": recorded}


def export_ensemble(
    results: Path, wanted: Wanted, to: Path, formats: Sequence[str] = (), say: Say = silent
) -> dict[str, Any]:
    """Write several trials, or several views of one, as one model to the folder `to`.

    Args:
        results: the results directory.
        wanted: the trials and the views.
        to: as in `export`.
        formats: as in `export`.
        say: as in `export`.

    Returns:
        As `export` but for `recorded`, since the figures are those of no trial, and `members` (trial and validation
        accuracy of each), `accuracy_one_view` (see `Card`) and `left_out` (better trials of the study that do not see
        the same pictures as its best one).

    Raises:
        InputError: there are no such trials, they do not go together, or `to` cannot be used.
        WorkError: as `export`, or the data set could not be fetched.
    """
    known = _known(formats)
    check_new_folder(to)
    built = build(results, wanted, say)
    return _told(publish(to, built.model, built.card, built.trials, known, say), to) | {
        "members": [{"trial": one.trial, "accuracy": one.accuracy} for one in built.card.members],
        "accuracy_one_view": built.card.accuracy_one_view,
        "left_out": list(built.left_out),
    }


def publish(
    to: Path,
    model: nn.Module,
    card: Card,
    trials: Sequence[Trial],
    wanted: Sequence[Format] = (),
    say: Say = silent,
) -> Card:
    """Write a model with its card to the folder `to`, check it, and let the folder appear. Returns the whole card.

    Args:
        to: as in `export`.
        model: from inputs as the card describes them to logits, in evaluation mode on the CPU.
        card: without the SHA-256 of the weights and what is checked.
        trials: whose models it holds; their validation pictures are compared.
        wanted: formats beside safetensors.
        say: as in `export`.
    """
    given = pictures(trials[0], card.preprocess)
    target = Path(os.path.realpath(to))  # `to` may be a link to an empty folder
    building = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    with writing(to):
        target.parent.mkdir(parents=True, exist_ok=True)
        building.mkdir()
        try:
            sha256 = save_tensors(building / WEIGHTS, model.state_dict(), {"format": "pt"})
            card = _checked(building, card.model_copy(update={"sha256": sha256}), model, given)
            if wanted:
                found = write_formats(building, wanted, model, card.preprocess, trials[0], say)
                card = card.model_copy(update={"formats": found})
            write_card(building, card)
            write_atomic(building / "README.md", card_text(card, trials, printable(to.name)))
            _rename_into_place(building, target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return card


def _told(card: Card, to: Path) -> dict[str, Any]:
    """What `export` returns of a folder."""
    return {
        "trial": card.trial,
        "folder": str(to),
        "accuracy": card.accuracy,
        "sha256": card.sha256,
        "timm": card.timm,
        "checked_on": card.checked_on,
        "agreement": card.agreement.model_dump() if card.agreement else None,
        "formats": {name: figures.model_dump() for name, figures in card.formats.items()},
        "load": load_line(card, str(to)),
    }


def _known(names: Sequence[str]) -> list[Format]:
    """The formats beside safetensors, each once."""
    for name in names:
        if name not in FILES:
            raise InputError(f"There is no format {name!r}; take one of: {', '.join(FILES)}.")
    return [known for known in FILES if known in names and known != "safetensors"]


def _card(one: Trained) -> Card:
    record, trial = one.record, one.trial
    assert record.accuracy is not None  # a finished trial has one
    return Card(
        backbone=trial.backbone,
        head=one.head,
        dataset=trial.dataset,
        classes=one.classes,
        preprocess=one.expects,
        trial=one.name,
        strategy=trial.strategy.kind,
        reshaped=trial.reshaped,
        accuracy=record.accuracy,
        interval=wilson(record.accuracy, record.images),
        accuracy_fp32=record.accuracy_fp32,
        images=record.images,
        sha256="",
        timm=trial.backbone.startswith(TIMM) and one.head is None and not trial.reshaped,
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
