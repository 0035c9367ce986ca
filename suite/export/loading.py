"""Loading an exported model into PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from suite.errors import InputError
from suite.export.card import WEIGHTS, Card, Member, read_card
from suite.models import classifiers, heads
from suite.models.backbones import unfilled
from suite.models.ensembles import Ensemble
from suite.models.shapes import fit_shapes
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
        model = _ensemble(card, tensors) if card.members else _network(card, tensors, len(card.classes))
        model.load_state_dict(tensors)
    except (AssertionError, RuntimeError, LookupError, ValueError, TypeError, StopIteration) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()


def _network(described: Card | Member, tensors: Mapping[str, Tensor], classes: int) -> nn.Module:
    """The network that these tensors fit, without its weights."""
    expects = described.preprocess
    model = unfilled(described.backbone, classes=classes, channels=expects.channels, size=expects.size)
    if described.head is not None:
        own = _below(classifiers.name_of(model), tensors)
        classifiers.replace(model, heads.restore_folded(described.head, own, classes))
    return fit_shapes(model, tensors) if described.reshaped else model


def _ensemble(card: Card, tensors: Mapping[str, Tensor]) -> nn.Module:
    models = [
        _network(member, _below(f"members.{i}.model", tensors), len(card.classes))
        for i, member in enumerate(card.members)
    ]
    return Ensemble(models, [member.preprocess for member in card.members], card.preprocess, card.views)


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the module of that name, as it names them itself."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
