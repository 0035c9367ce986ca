"""Loading an exported model into PyTorch."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from suite.errors import InputError, first_line
from suite.export.card import WEIGHTS, read_card
from suite.export.networks import network
from suite.models.state_dicts import read_tensors
from suite.store.files import file_sha256


def load(folder: str | Path) -> nn.Module:
    """The exported model in a folder, in evaluation mode.

    It takes normalised images (B, C, size, size) float32, as the model card describes them, and returns logits
    (B, classes). Raises InputError where the folder is no export, or its files are damaged or do not belong together.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    if file_sha256(path) != card.sha256:
        raise InputError(f"{path} is not the file its card describes (SHA-256 differs); export the model again.")
    try:
        model = network(card, tensors)
        model.load_state_dict(tensors)
    except (AssertionError, RuntimeError, LookupError, ValueError, TypeError, StopIteration) as error:
        reason = first_line(error)
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()
