"""mnist-suite.json, the card of an exported model for programs; `suite.export.readme` writes the one for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from suite.data.registry import DATASETS
from suite.errors import InputError
from suite.spec import Cost, Count, Format, FormatFigures, HeadSpec, Preprocess, Provenance, Spec, Unit

CARD = "mnist-suite.json"

WEIGHTS = "model.safetensors"

FILES: dict[Format, str] = {
    "safetensors": WEIGHTS,
    "onnx": "model.onnx",
    "int8": "model.int8.onnx",
    "torch-export": "model.pt2",
}
"""The file of each format; safetensors is always there."""


class Agreement(Spec):
    """What timm's own transform and the exported model answer, compared with predictions of the suite."""

    pictures: Count  # validation pictures that were compared
    equal: Unit  # proportion with the same label
    logits: float = Field(ge=0)  # largest difference of a logit


class Member(Spec):
    """One trained model of an ensemble."""

    trial: str  # "STUDY/TRIAL"
    backbone: str
    head: HeadSpec | None = None  # as in `Card`
    strategy: str
    reshaped: bool = False  # as in `Card`
    preprocess: Preprocess  # what the model itself takes; the ensemble resizes and normalises for it
    accuracy: Unit  # alone, on the validation pictures, in float32
    sha256: str  # of the weights that the trial recorded


class Card(Spec):
    """The contents of mnist-suite.json: what the model is, what it takes, how good it is and where it comes from."""

    schema_version: Literal[1] = 1
    backbone: str
    head: HeadSpec | None = None  # None where the classifier is the backbone's own linear layer
    dataset: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    preprocess: Preprocess  # from a picture to the model's input
    trial: str  # "STUDY/TRIAL"
    strategy: str
    reshaped: bool = False  # whether layers have the sizes of the weights in the file, not those of the backbone
    accuracy: Unit  # on validation
    interval: tuple[Unit, Unit]  # 95 % Wilson interval of the accuracy
    accuracy_fp32: Unit | None = None  # the same in float32, as the exported model computes; None where not measured
    images: Count  # validation images
    sha256: str  # of model.safetensors
    timm: bool  # whether timm.create_model can load the folder
    checked_on: Literal["validation pictures", "random pictures"] = "validation pictures"  # before it was published
    agreement: Agreement | None = None  # None where timm cannot load the folder, or the pictures were not there
    formats: dict[Format, FormatFigures] = Field(default_factory=dict)  # of the files beside
    members: tuple[Member, ...] = ()  # of an ensemble (`suite.models.ensembles`); empty where the model is one network
    views: tuple[Literal["shift", "flip"], ...] = ()  # of each picture, over which an ensemble averages
    accuracy_one_view: Unit | None = None  # of the same model on the pictures alone; None without further views
    cost: Cost | None
    provenance: Provenance | None


def _of_this_version(card: Any) -> Any:
    """Cards of older versions state the input without a model of its own, and not how pictures become square."""
    if not isinstance(card, dict) or "preprocess" in card or "native_size" not in card:
        return card
    stated = {name: card.pop(name, None) for name in ("channels", "size", "mean", "std", "interpolation")}
    known = DATASETS.get(str(card.get("dataset")))
    stated |= {"stored": card.pop("native_size"), "placement": known.placement if known else None}
    return card | {"preprocess": stated}


def read_card(folder: Path) -> Card:
    """The card in the folder of an exported model. Raises InputError where there is none or it is not valid."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} is no exported model: it has no {CARD}. `mnist-suite export` writes such folders.")
    try:
        return Card.model_validate_json(json.dumps(_of_this_version(json.loads(path.read_bytes()))))
    except (ValidationError, ValueError, RecursionError):
        raise InputError(f"{path} is damaged or was written by a newer version; export the model again.") from None
