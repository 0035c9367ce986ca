"""The card of an exported model: `mnist-suite.json` for programs, `README.md` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from suite.data.registry import DATASETS
from suite.errors import InputError
from suite.spec import Cost, Count, HeadSpec, Preprocess, Provenance, Spec, Trial, Unit

CARD = "mnist-suite.json"

WEIGHTS = "model.safetensors"


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
    accuracy: Unit  # on validation
    interval: tuple[Unit, Unit]  # 95 % Wilson interval of the accuracy
    images: Count  # validation images
    sha256: str  # of model.safetensors
    timm: bool  # whether timm.create_model can load the folder
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


def load_line(card: Card, folder: str) -> str:
    """The Python expression that loads the model."""
    if card.timm:
        return f'timm.create_model("local-dir:{folder}", pretrained=True)'
    return f'suite.export.load("{folder}")'


def card_text(card: Card, trial: Trial, folder: str) -> str:
    """README.md in Markdown: the model, its accuracy, its cost, its provenance and how to load it."""
    low, high = (100 * bound for bound in card.interval)
    cost, made, expects = card.cost, card.provenance, card.preprocess
    lines = [
        f"# {card.backbone} on {card.dataset}",
        "",
        f"Strategy `{card.strategy}`, trial `{card.trial}` of mnist-suite {made.version if made else ''}.",
        "",
        f"- Validation accuracy {100 * card.accuracy:.2f} % on {card.images} images (95 % Wilson interval "
        f"{low:.2f} to {high:.2f}). The search chose by this figure, so it is optimistic; it is not a test figure.",
        f"- Input: {expects.channels} x {expects.size} x {expects.size}, pixels scaled to 0..1, then "
        f"(x - {list(expects.mean)}) / {list(expects.std)}.",
        f"- Classes, in order: {', '.join(card.classes)}.",
    ]
    if cost is not None:
        energy = f"{cost.energy_joules:.0f} J ({cost.energy_source})" if cost.energy_joules else cost.energy_source
        lines += [
            f"- {cost.parameters:,} parameters, {cost.trainable:,} of them trained; {cost.forward_flops:,} FLOPs "
            "an image (a multiply-add is two).",
            f"- Training: {cost.train_seconds:.1f} s, {cost.training_flops:.3g} FLOPs; energy {energy}.",
        ]
    if made is not None:
        lines += [f"- Made on {made.hardware} in {made.precision} by `{made.command}`, torch {made.packages['torch']}."]
        if made.weights:
            lines += [f"- Started from the weights {made.weights} (SHA-256 {made.weights_sha256})."]
    recipe = json.dumps(trial.recipe.model_dump(exclude_defaults=True))
    lines += [
        f"- Recipe: `{recipe}`",
        f"- SHA-256 of {WEIGHTS}: {card.sha256}",
        "",
        "```python",
        "import timm" if card.timm else "import suite.export",
        f"model = {load_line(card, folder)}",
        "```",
        "",
    ]
    return "\n".join(lines)


def read_card(folder: Path) -> Card:
    """The card in the folder of an exported model. Raises InputError where there is none or it is not valid."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder} is no exported model: it has no {CARD}. `mnist-suite export` writes such folders.")
    try:
        return Card.model_validate_json(json.dumps(_of_this_version(json.loads(path.read_bytes()))))
    except (ValidationError, ValueError, RecursionError):
        raise InputError(f"{path} is damaged or was written by a newer version; export the model again.") from None
