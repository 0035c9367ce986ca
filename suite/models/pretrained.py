"""Loading pretrained weights into a backbone, adapted to its channels, image size and classes.

`load_pretrained` fills the model with exactly the weights asked for or raises: no model keeps random weights unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from suite.errors import InputError, WorkError
from suite.models.backbones import TIMM, Backbone, exists, timm_config
from suite.models.state_dicts import decode, read_file
from suite.models.unwrapping import check_numbers, find_state_dict, some
from suite.models.weight_sources import Source, architecture_of, download, find_pretrained, weights_file

PRETRAINED = "pretrained"  # as a source of weights: those that find_pretrained finds

LEFT_OUT = "classifier left out"  # a note of `Provenance.detail`


@dataclass(frozen=True)
class Provenance:
    """Where a model's weights came from, for its record."""

    source: str
    sha256: str  # of the file
    detail: str  # what was adapted or left out


def load_pretrained(name: str, model: nn.Module, source: str | Path) -> Provenance:
    """Load weights from `source` into `model`, which was built as the backbone `name`.

    `source` is "pretrained" (see `find_pretrained`), a file of safetensors or torch.save, or a folder with one. What
    training scripts save around the weights is left out (`unwrapping`), and all become float32.
    The first convolution is adapted to the model's channels as timm does (summed over colours for grey images), and
    position embeddings to its image size. A classifier for another number of classes is not loaded and stays as it
    was; one that fits is loaded, so it has to be reset where the classes have another meaning.

    Raises InputError if the weights do not exist or do not fit, which leaves the model unchanged, and WorkError if a
    download fails.
    """
    exists(name)
    found = find_pretrained(name) if source == PRETRAINED else Source(str(source), weights_file(Path(source)))
    path = found.path or download(timm_config(name).hf_hub_id)
    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    if found.sha256 not in (None, digest):
        raise InputError(
            f"{path} is not the file that {found.description} was published with: its SHA-256 is {digest} "
            f"instead of {found.sha256}. Install that package again."
        )
    state = find_state_dict(decode(data, path), model.state_dict(), path)
    where = f"{path} ({state.place})" if state.place else str(path)  # for messages
    check_numbers(state.tensors, model.state_dict(), where)
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in state.tensors.items()}
    if found.sha256:
        tensors = _renamed_for_timm(architecture_of(name), tensors)
    elif name.startswith(TIMM):
        tensors = _converted_by_timm(name, where, tensors, model)
    notes = [f"taken from {state.place}"] if state.place else []
    notes += _load(name, where, tensors, model) or ["every weight as it is"]
    return Provenance(found.description, digest, "; ".join(notes))


def _renamed_for_timm(architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The packages' tensors under timm's names. They have the same layers in the same order under other names."""
    import timm

    with torch.device("meta"):
        own = timm.create_model(architecture).state_dict()
    if [value.shape for value in tensors.values()] != [value.shape for value in own.values()]:
        raise WorkError(f"This version of timm has another {architecture} than the packaged weights are for.")
    return dict(zip(own, tensors.values(), strict=True))


def _converted_by_timm(name: str, where: str, tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The tensors after timm's conversion for this model: old names replaced, position embeddings resampled.

    timm converts when it creates a pretrained model, so one is created here. It has the checkpoint's own channels and
    classes, because for others timm would silently skip weights; `_load` adapts those.
    """
    import timm

    config, own = timm_config(name), model.state_dict()
    heads = [key for key in _weight_names(model, "classifier") if key in tensors and tensors[key].numel()]
    stems = [key for key in _weight_names(model, "first_conv") if key in tensors and key in own]
    # Without the classifier's weights timm can only fill a model without a classifier, unless it knows other names.
    counts = [tensors[heads[0]].shape[:1].numel()] if heads else [config.num_classes, 0]
    channels = (stems and _channels(model, tensors[stems[0]], own[stems[0]])) or config.input_size[0]
    size: dict[str, Any] = {}
    failure: Exception | None = None
    if config.fixed_input_size:
        size["img_size"] = timm.models.get_model_input_config(model)["input_size"][1:]
    for classes in counts:
        try:
            with torch.random.fork_rng(devices=[]):
                converted = timm.create_model(
                    name.removeprefix(TIMM),
                    pretrained=True,
                    num_classes=classes,
                    in_chans=channels,
                    pretrained_cfg_overlay={
                        "state_dict": dict(tensors),  # some converters change what they are given
                        "num_classes": classes,
                        "label_offset": 0,
                        "input_size": (channels, *config.input_size[1:]),
                    },
                    **size,
                )
            return converted.state_dict()
        except Exception as error:  # on unsuitable tensors timm's converters raise almost anything
            failure = error
    raise InputError(_mismatch(name, where, tensors, own)) from failure


def _load(name: str, where: str, tensors: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Load `tensors` into `model`, all or none. Returns what was adapted or left out."""
    new, own = dict(tensors), model.state_dict()
    notes: list[str] = []
    for key in _weight_names(model, "first_conv"):
        if key in new and key in own and new[key].shape != own[key].shape:
            before, after = _channels(model, new[key], own[key]), cast(Backbone, model).in_chans
            new[key] = _adapted(new[key], before, after)
            notes.append(f"{key} adapted from {before} to {after} channels")
    heads = [key.removesuffix(".weight") for key in _weight_names(model, "classifier")]
    head = {key for key in (*new, *own) if key.rpartition(".")[0] in heads}
    if any(key not in new or key not in own or new[key].shape != own[key].shape for key in head):
        new = {key: value for key, value in new.items() if key not in head}
        own = {key: value for key, value in own.items() if key not in head}
        notes.append(LEFT_OUT)
    if new.keys() != own.keys() or any(new[key].shape != own[key].shape for key in own):
        raise InputError(_mismatch(name, where, new, own))
    if broken := next((key for key, value in new.items() if not value.isfinite().all()), None):
        raise InputError(f"The weights in {where} are no use: {broken} holds NaN or infinity. Pass other ones.")
    model.load_state_dict(new, strict=False)  # nothing but the classifier is missing, as checked above
    return notes


def _weight_names(model: nn.Module, part: Literal["first_conv", "classifier"]) -> list[str]:
    """Names of the weights of a model's first convolutions or classifiers; most models have one of each."""
    names: str | Sequence[str] = cast(Backbone, model).pretrained_cfg.get(part) or ()
    return [f"{name}.weight" for name in ([names] if isinstance(names, str) else names)]


def _channels(model: nn.Module, weight: Tensor, own: Tensor) -> int:
    """Image channels that a first convolution's `weight` (O, I, h, w) is for; 0 if it is not such a weight.

    That is not always I, which in some stems also counts pixels that were folded into channels.
    """
    if weight.ndim != 4 or own.ndim != 4 or not weight.numel():
        return 0
    return weight.shape[1] * cast(Backbone, model).in_chans // own.shape[1]


def _adapted(weight: Tensor, before: int, after: int) -> Tensor:
    """A first convolution's weight for `after` instead of `before` channels; unchanged where timm cannot adapt it."""
    from timm.models import adapt_input_conv

    try:
        return adapt_input_conv(after, weight, base_chans=before)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError):
        return weight  # `_load` refuses it for its shape, together with all others that differ


def _mismatch(name: str, where: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The message about weights that do not fit the model, with the first few differences of each kind."""

    def shape(tensor: Tensor) -> str:
        return "x".join(map(str, tensor.shape)) or "a scalar"

    missing = [key for key in wanted if key not in found]
    surplus = sorted(key for key in found if key not in wanted)
    others = [
        f"{key} is {shape(found[key])} in the file, {shape(wanted[key])} in the model"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    kinds = {"missing in the file": missing, "unknown to the model": surplus, "of another shape": others}
    shown = "; ".join(f"{len(keys)} {kind} ({some(keys)})" for kind, keys in kinds.items() if keys)
    return (
        f"The weights in {where} are not for {name} as it was built, whose {len(wanted)} tensors they should have: "
        f"{shown or 'timm cannot read them'}. "
        "Pass weights of the same architecture and image size, or choose the backbone that they are for."
    )
