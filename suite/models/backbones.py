"""Backbones: the suite's own networks and all models of timm, behind one interface.

A backbone maps images (B, C, H, W) to features (B, D) and these to class scores (B, classes). The interface is that of
timm's models (`forward_features`, `forward_head`, `get_classifier`, `reset_classifier`), so that the suite's networks
and timm's are trained, probed and fine-tuned by the same code. timm takes seconds to import and is imported only for
its own models. To add a backbone, add an entry to `BACKBONES`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from suite.errors import InputError, as_clause
from suite.models.compact import CompactCNN, OwnNetwork
from suite.models.light_import import light_import

TIMM = "timm:"  # prefix of the names of timm's models


class Stage(nn.Module):
    """Convolution, 2x2 max pooling, optional batch norm, ReLU: (B, C, H, W) to (B, width, about H / 2, about W / 2).

    Pooling comes before the norm and the ReLU, which then run on a quarter of the pixels. As ReLU is monotonic, the
    order of pooling and ReLU does not change the result. With `strided` the convolution has stride 2 instead of the
    pooling, and a quarter of the work.
    """

    def __init__(self, channels: int, width: int, kernel: int, padding: int, norm: bool, strided: bool) -> None:
        super().__init__()
        stride = 2 if strided else 1
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=not norm)
        self.pool = nn.Identity() if strided else nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.pool(self.conv(x))))


class SmallCNN(OwnNetwork):
    """Convolutional stages, one hidden layer and a linear classifier: (B, channels, size, size) to (B, classes).

    `stages` lists (width, kernel, padding) from input to output, and `hidden` is the number of features D. With
    `strided` the first stage halves the image by the stride of its convolution; the others always pool. Weights have
    PyTorch's default initialisation. Raises ValueError if the image is too small for the stages.
    """

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
            halves_by_stride = strided and index == 0
            self.stages.append(Stage(channels, width, kernel, padding, norm, halves_by_stride))
            span = size + 2 * padding - kernel  # positions of the kernel along one side, less one
            channels, size = width, span // 2 + 1 if halves_by_stride else (span + 1) // 2
        if size < 1:
            raise ValueError("the image is too small for its convolutions")
        self.hidden = nn.Linear(channels * size * size, hidden)
        self.classifier: nn.Module = nn.Linear(hidden, classes)
        # timm has two names for D: before its pooling layer and before its classifier.
        self.num_features = self.head_hidden_size = hidden

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the feature maps of the last stage (B, C', H', W')."""
        return self.stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to class scores (B, classes), or to the hidden activations (B, D) with `pre_logits`."""
        x = F.relu(self.hidden(x.flatten(1)))
        return x if pre_logits else self.classifier(x)


# Each entry is called as entry(classes, channels, size), with the image size in pixels. `timm:<name>` needs no entry.
AS_WITH_WEIGHTS: dict[str, dict[str, Any]] = {"timm:fbnetc_100": {"bn_eps": 1e-3}}
"""Arguments that timm itself gives to a model that loads weights, and to no other."""

BACKBONES: dict[str, Callable[[int, int, int], nn.Module]] = {
    # The two networks of the tutorial, unchanged.
    "cnn": partial(SmallCNN, stages=[(32, 3, 1), (64, 3, 1)], hidden=128),
    "net": partial(SmallCNN, stages=[(10, 5, 0), (20, 5, 0)], hidden=50),
    # The suite's own, with batch norm. MFLOP per image of a forward pass, a multiply-add counted as two: cnn 8.5,
    # lean-xxs 0.4, lean-xs 2.1, lean-s 1.3, lean-m 4.9, lean-l 8.4. experiments/accuracy.py and tiny.py train them.
    "lean-xxs": partial(CompactCNN, widths=(6, 7, 7), pooled=(7,)),
    "lean-xs": partial(CompactCNN, widths=(10, 14, 14, 14), pooled=(14,)),
    "lean-s": partial(SmallCNN, stages=[(16, 6, 0), (32, 3, 0)], hidden=128, norm=True, strided=True),
    "lean-m": partial(SmallCNN, stages=[(24, 5, 0), (48, 3, 0), (96, 3, 1)], hidden=128, norm=True),
    "lean-l": partial(SmallCNN, stages=[(32, 5, 0), (64, 3, 0), (128, 3, 1)], hidden=128, norm=True),
}


class Backbone(Protocol):
    """The interface of all backbones, beside that of nn.Module. It is timm's."""

    in_chans: int
    num_features: int
    pretrained_cfg: Mapping[str, Any]

    def forward_features(self, x: Tensor) -> Tensor: ...
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor: ...
    def get_classifier(self) -> nn.Module | Sequence[nn.Module]: ...
    def reset_classifier(self, num_classes: int) -> None: ...


def exists(name: str) -> None:
    """Check that `name` is a backbone. Raises InputError, with similar names, if it is not."""
    if name in BACKBONES:
        return
    known: Iterable[str] = BACKBONES
    if name.startswith(TIMM):
        timm = light_import("timm")
        wanted = name.removeprefix(TIMM)
        architecture, _, tag = wanted.partition(".")
        if today := timm.models.get_deprecated_models().get(architecture):
            today = today if timm.is_model_pretrained(today) else today.partition(".")[0]
            raise InputError(f"{name} is an old name: timm calls this model {TIMM}{today} today. Pass that name.")
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
    """Build a backbone for images (B, channels, size, size), with random weights that depend on `seed` alone.

    Without `size` it is built for 28 pixels, or for timm's size of the model. The model is in training mode, on the
    CPU. The global random generators are left unchanged. Raises InputError for an unknown name and for images that
    the model cannot take. A forward pass of one image checks that here, before data are downloaded and prepared.
    """
    exists(name)
    # fork_rng() and torch.manual_seed() would also save and seed every GPU; only the CPU's generator is drawn from.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        try:
            pixels: int = size or (28 if name in BACKBONES else timm_config(name).input_size[-1])
            model = _network(name, classes, channels, pixels)
            model.eval()(torch.zeros(1, channels, pixels, pixels))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"The backbone {name} cannot take images of {size or 'its own'} pixels with {channels} channel(s): "
                f"{as_clause(error)}. Choose another size, or another backbone."
            ) from error
    return model.train()


class _Unfilled(TorchFunctionMode):
    """Draws no random numbers and writes no constants to new parameters.

    `normal_` and `uniform_` write their mean and lower bound instead: `torch.nn.init.trunc_normal_` draws anew for as
    long as values lie outside its bounds, and what is in newly allocated memory may lie there.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name: str = getattr(func, "__name__", "")
        filled = args[0] if args else kwargs.get("tensor")
        if name in ("normal_", "uniform_") and isinstance(filled, torch.Tensor):
            value: float = args[1] if len(args) > 1 else kwargs.get("mean" if name == "normal_" else "from", 0.0)
            filled.detach().fill_(value)
            return filled
        in_place = name.endswith("_") and not name.startswith("__")
        if in_place and isinstance(filled, nn.Parameter):
            return filled
        return func(*args, **kwargs)


def unfilled(name: str, *, classes: int, channels: int, size: int) -> nn.Module:
    """The network of `build` for weights that are about to be loaded: its own are not initialised.

    Random initialisation takes seconds for large models. Whether the model can take the images is not tried. Raises
    InputError for an unknown name, and ValueError, TypeError, RuntimeError or AssertionError as its constructor does.
    """
    exists(name)
    with _Unfilled():
        return _network(name, classes, channels, size)


def sketch(name: str, *, classes: int, channels: int, size: int) -> nn.Module:
    """The network of `build` on the meta device: its tensors have shapes, but no values, and take no memory.

    Whether the model can take the images is not tried. Raises as `unfilled` does.
    """
    exists(name)
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _Unfilled():
        return _network(name, classes, channels, size)


def _network(name: str, classes: int, channels: int, size: int) -> nn.Module:
    if name in BACKBONES:
        return BACKBONES[name](classes, channels, size)
    wanted: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    if timm_config(name).fixed_input_size:  # position embeddings or windows depend on the size
        wanted["img_size"] = size
    wanted |= AS_WITH_WEIGHTS.get(name, {})
    return light_import("timm").create_model(name.removeprefix(TIMM), **wanted)


def timm_config(name: str) -> Any:
    """timm's PretrainedCfg of one of its models: input size, mean, hub repository and more."""
    return light_import("timm").get_pretrained_cfg(name.removeprefix(TIMM))


def embed(model: nn.Module, x: Tensor) -> Tensor:
    """Images (B, C, H, W) to the features before the classifier (B, D), with D = `embed_size(model)`."""
    body = cast(Backbone, model)
    return body.forward_head(body.forward_features(x), pre_logits=True).flatten(1)  # of some models (B, D, 1, 1)


def embed_size(model: nn.Module) -> int:
    """D, the number of inputs of the classifier.

    timm's `num_features` can differ: it is counted before the hidden layer that a few models (MobileNetV3) have.
    """
    body = cast(Backbone, model)
    return getattr(body, "head_hidden_size", None) or body.num_features


def classifiers(model: nn.Module) -> list[nn.Module]:
    """The classifier; the classifiers of a model that averages the scores of several, as distilled ones do."""
    found = cast(Backbone, model).get_classifier()
    layers = [found] if isinstance(found, nn.Module) and not isinstance(found, nn.ModuleList) else list(found)
    # timm's NormLinear normalises the features, and of one model (EfficientViT of MSRA) only its linear part is named.
    whole = {id(part): m for m in model.modules() if type(m).__name__ == "NormLinear" for part in m.children()}
    return [whole.get(id(layer), layer) for layer in layers]


def classifier_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of the classifiers."""
    owned = {id(parameter) for classifier in classifiers(model) for parameter in classifier.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in owned}


def blocks(model: nn.Module) -> list[list[str]]:
    """Parameter names in blocks from input to output, each name once; the last block is the classifier alone.

    Blocks of a timm model are those of its layer-wise learning rate decay (`group_matcher`); blocks of the suite's
    own networks are the stages and the hidden layer.
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
    classifier = classifier_parameters(model)
    # A parameter that timm's matcher omits is put into the first block, which is the last to be trained.
    depth = {name: float("inf") if name in classifier else layer.get(name, 0) for name in names}
    return [list(group) for _, group in groupby(sorted(names, key=depth.__getitem__), key=depth.__getitem__)]


def norm_parameters(model: nn.Module) -> set[str]:
    """Names of the weights and biases of normalisation layers of any kind.

    These are recognised by class name, because timm has a dozen norm layers without a common base class.
    """
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
        if name in ("weight", "bias")
    }
