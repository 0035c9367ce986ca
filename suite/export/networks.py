"""The network that the card of an exported model describes, ready for its weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from suite.export.card import Card, Member
from suite.models import classifiers, heads
from suite.models.backbones import unfilled
from suite.models.ensembles import Ensemble
from suite.models.shapes import fit_shapes


def network(card: Card, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A network, or an ensemble of them, that takes the tensors as its state; they are not loaded.

    Raises what constructors and lookups raise where the tensors do not fit.
    """
    if not card.members:
        return _one(card, tensors, len(card.classes))
    models = [
        _one(member, _below(f"members.{i}.model", tensors), len(card.classes)) for i, member in enumerate(card.members)
    ]
    return Ensemble(models, [member.preprocess for member in card.members], card.preprocess, card.views)


def _one(described: Card | Member, tensors: Mapping[str, Tensor], classes: int) -> nn.Module:
    expects = described.preprocess
    model = unfilled(described.backbone, classes=classes, channels=expects.channels, size=expects.size)
    if described.head is not None:
        own = _below(classifiers.name_of(model), tensors)
        classifiers.replace(model, heads.restore_folded(described.head, own, classes))
    return fit_shapes(model, tensors) if described.reshaped else model


def _below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the module of that name, as it names them itself."""
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
