"""The metadata at the head of a model card, as the Hugging Face hub reads them.

https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

from typing import Any

from suite.data.registry import DATASETS
from suite.export.card import Card

HUB_DATASETS = {  # names of our data sets on the hub
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "svhn": "ufldl-stanford/svhn",
}

OWN = "own pictures"  # stands for a data set of the user's own, whose name is a path


def dataset_title(card: Card) -> str:
    known = DATASETS.get(card.dataset)
    return known.title if known else OWN


def model_name(card: Card) -> str:
    """What the model is called, in a few words."""
    name = card.dataset if card.dataset in DATASETS else OWN
    if len(card.members) > 1:
        return f"Ensemble of {len(card.members)} models ({card.backbone}) on {name}"
    return f"{card.backbone} on {name}"


def front_matter(card: Card) -> str:
    """The block of YAML, between lines of dashes. The license is for the owner of the model to state: see `push`."""
    from huggingface_hub.repocard_data import EvalResult, ModelCardData

    hub = HUB_DATASETS.get(card.dataset)
    tags = ["image-classification", "mnist-suite", *sorted({"safetensors", *card.formats})]
    if len(card.members) > 1:
        tags.append("ensemble")
    facts: dict[str, Any] = {
        "library_name": "timm" if card.timm else "mnist-suite",
        "pipeline_tag": "image-classification",
        "tags": tags,
        "datasets": [hub] if hub else None,
        "metrics": ["accuracy"],
    }
    result = EvalResult(
        task_type="image-classification",
        dataset_type=hub or card.dataset if card.dataset in DATASETS else "imagefolder",
        dataset_name=dataset_title(card),
        dataset_split="validation",
        metric_type="accuracy",
        metric_name=f"accuracy on {card.images} validation images",
        metric_value=card.accuracy if card.accuracy_fp32 is None else card.accuracy_fp32,
    )
    data = ModelCardData(**facts, model_name=model_name(card), eval_results=[result])
    return f"---\n{data.to_yaml()}\n---"
