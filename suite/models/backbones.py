"""The backbones a trial can train, and the few questions the rest of the suite asks of any of them.

A backbone maps images (B, C, H, W) to class scores (B, classes) by way of features (B, D). The contract is timm's own
(`forward_features`, `forward_head`, `get_classifier`, `reset_classifier`), so a small CNN of ours and any timm model
are trained, probed and fine-tuned by the same code. timm costs seconds to import and is loaded only for its models.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError

TIMM = "timm:"


class Stage(nn.Module):
    """Convolution, halving max pool, optional batch norm, ReLU: (B, C, H, W) to (B, width, about H / 2, about W / 2).

    Pooling comes before the norm and the ReLU. Both orders of pool and ReLU give the same numbers, because ReLU is
    monotonic, but this one runs what follows the convolution on a quarter of the pixels. `strided` leaves the pool
    out and has the convolution itself step by two, which spares it three quarters of its work.
    """

    def __init__(self, channels: int, width: int, kernel: int, padding: int, norm: bool, strided: bool) -> None:
        super().__init__()
        stride = 2 if strided else 1
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=not norm)
        self.pool = nn.Identity() if strided else nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.pool(self.conv(x))))


class SmallCNN(nn.Module):
    """A few stages, one hidden layer and a linear classifier: (B, channels, size, size) to (B, classes).

    `stages` lists (width, kernel, padding) from input to output and `hidden` is the number of features D. With
    `strided` the first stage halves by its convolution's stride, the others always by pooling.
    Weights start as PyTorch initialises them. Raises ValueError where the stages leave nothing of the image.
    """

    # Where pretrained weights may have to be adapted, by the names that timm's models tell it under.
    pretrained_cfg: ClassVar[Mapping[str, str]] = {"first_conv": "stages.0.conv", "classifier": "classifier"}

    def __init__(
        self,
        classes: int,
        channels: int,
        size: int,
        *,
        stages: Sequence[tuple[int, int, int]],
        hidden: int,
        norm: bool = False,
        strided: bool = False,
    ) -> None:
        super().__init__()
        self.in_chans = channels
        self.stages = nn.Sequential()
        for index, (width, kernel, padding) in enumerate(stages):
            steps = strided and index == 0
            self.stages.append(Stage(channels, width, kernel, padding, norm, steps))
            left = size + 2 * padding - kernel
            channels, size = width, left // 2 + 1 if steps else (left + 1) // 2
        if size < 1:
            raise ValueError("the image is too small for its convolutions")
        self.hidden = nn.Linear(channels * size * size, hidden)
        self.classifier: nn.Module = nn.Linear(hidden, classes)
        # The two names timm has for D: before its pooling layer and before its classifier.
        self.num_features = self.head_hidden_size = hidden

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the last stage's feature maps (B, C', H', W')."""
        return self.stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to class scores (B, classes), or to the hidden activations (B, D) with `pre_logits`."""
        x = F.relu(self.hidden(x.flatten(1)))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a freshly initialised classifier in place; 0 classes leave the features as they are."""
        fresh = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.classifier = fresh.to(self.hidden.weight.device, self.hidden.weight.dtype)


# Every entry is called as entry(classes, channels, size). Beside these, `timm:<name>` is any timm model.
BACKBONES: dict[str, Callable[[int, int, int], nn.Module]] = {
    # The two networks of the tutorial, as it has them.
    "cnn": partial(SmallCNN, stages=[(32, 3, 1), (64, 3, 1)], hidden=128),
    "net": partial(SmallCNN, stages=[(10, 5, 0), (20, 5, 0)], hidden=50),
    # Ours, with batch norm. MFLOP of a forward pass of one image, a multiply-add counted as two: cnn 8.5, lean-s 1.3,
    # lean-m 4.9, lean-l 8.4. experiments/accuracy.py trains them, and has what they reach.
    "lean-s": partial(SmallCNN, stages=[(16, 6, 0), (32, 3, 0)], hidden=128, norm=True, strided=True),
    "lean-m": partial(SmallCNN, stages=[(24, 5, 0), (48, 3, 0), (96, 3, 1)], hidden=128, norm=True),
    "lean-l": partial(SmallCNN, stages=[(32, 5, 0), (64, 3, 0), (128, 3, 1)], hidden=128, norm=True),
}


class Backbone(Protocol):
    """What timm's models and ours have in common beyond being modules."""

    in_chans: int
    num_features: int
    pretrained_cfg: Mapping[str, Any]

    def forward_features(self, x: Tensor) -> Tensor: ...
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...
    def get_classifier(self) -> nn.Module | Sequence[nn.Module]: ...
    def reset_classifier(self, num_classes: int) -> None: ...


def exists(name: str) -> None:
    """Return if `name` is a backbone; raise InputError with the nearest names if it is not."""
    if name in BACKBONES:
        return
    known: Iterable[str] = BACKBONES
    if name.startswith(TIMM):
        import timm

        wanted = name.removeprefix(TIMM)
        architecture, _, tag = wanted.partition(".")
        if timm.is_model(architecture) and (not tag or timm.is_model_pretrained(wanted)):
            return
        known = [TIMM + each for each in (timm.list_pretrained(architecture + ".*") or timm.list_models())]
    near = difflib.get_close_matches(name, known, n=4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(
        f"There is no backbone called {name!r}.{hint} Choose one of {', '.join(BACKBONES)}, "
        f"or {TIMM}<name> for any model that timm has."
    )


def build(name: str, *, classes: int, channels: int, size: int | None, seed: int) -> nn.Module:
    """Build a backbone with random weights that depend on `seed` alone, for images (B, channels, size, size).

    Without `size` it is built for the suite's own 28 pixels or for the size that timm gives the model. The global
    random number generators are left as they were. Raises InputError for an unknown name, and where the model cannot
    take such images: refused here by one small forward pass, not after the data are fetched and prepared.
    """
    exists(name)
    # fork_rng() and torch.manual_seed() would also save and seed every GPU; only the CPU's generator is drawn from.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        try:
            if name in BACKBONES:
                size = size or 28
                model = BACKBONES[name](classes, channels, size)
            else:
                model, size = _build_timm(name, classes, channels, size)
            model.eval()(torch.zeros(1, channels, size, size))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"The backbone {name} cannot take images of {size or 'its own'} pixels with {channels} channel(s): "
                f"{_first_line(error)}. Choose another size, or another backbone."
            ) from error
    return model.train()


def _build_timm(name: str, classes: int, channels: int, size: int | None) -> tuple[nn.Module, int]:
    import timm

    config = timm_config(name)
    pixels: int = size or config.input_size[-1]
    wanted: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if config.fixed_input_size:  # made for one size (position embeddings, windows), so it has to be told another
        wanted["img_size"] = pixels
    return timm.create_model(name.removeprefix(TIMM), **wanted), pixels


def timm_config(name: str) -> Any:
    """What timm knows of one of its models (a PretrainedCfg): input size, mean, hub repository and so on."""
    from timm.models import get_pretrained_cfg

    return get_pretrained_cfg(name.removeprefix(TIMM))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def embed(model: nn.Module, x: Tensor) -> Tensor:
    """Features before the classifier, (B, C, H, W) to (B, D) with D = `embed_size(model)`."""
    body = cast(Backbone, model)
    return body.forward_head(body.forward_features(x), pre_logits=True)


def embed_size(model: nn.Module) -> int:
    """D, the number of features that the classifier sees.

    Not timm's `num_features`, which is counted before the hidden layer that a few heads (MobileNetV3's) have.
    """
    body = cast(Backbone, model)
    return getattr(body, "head_hidden_size", None) or body.num_features


def classifier_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of the classifier, or of both classifiers of a distilled model."""
    found = cast(Backbone, model).get_classifier()
    heads = [found] if isinstance(found, nn.Module) else found
    owned = {id(parameter) for head in heads for parameter in head.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in owned}


def blocks(model: nn.Module) -> list[list[str]]:
    """Parameter names in groups from input to output, every name once; the last group is the classifier alone.

    The groups of a timm model are those timm decays learning rates over (its `group_matcher`); ours are its stages.
    """
    names = [name for name, _ in model.named_parameters()]
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        matcher = cast(Any, model).group_matcher(coarse=False)
        layer = cast(dict[str, int], group_parameters(model, matcher, reverse=True))
    else:
        children = {name: cast(re.Match[str], re.match(r"[^.]+(\.\d+)?", name))[0] for name in names}
        order = list(dict.fromkeys(children.values()))
        layer = {name: order.index(child) for name, child in children.items()}
    head = classifier_parameters(model)
    # A parameter that timm's matcher leaves out has no depth of its own: it goes with the input, thawed last.
    depth = {name: float("inf") if name in head else layer.get(name, 0) for name in names}
    return [list(group) for _, group in groupby(sorted(names, key=depth.__getitem__), key=depth.__getitem__)]


def norm_parameters(model: nn.Module) -> set[str]:
    """Names of the scales and shifts of normalisation layers, whatever their kind.

    Told by class name, since timm has a dozen norm layers of its own with no common base.
    """
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
        if name in ("weight", "bias")
    }
