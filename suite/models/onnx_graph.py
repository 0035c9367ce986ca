"""A trained model as one graph from stored pictures to probabilities, and that graph as an ONNX file.

The graph takes pictures as `suite.data.pictures.stored_picture` gives them, (B, C, stored, stored) uint8 with any B,
and returns probabilities (B, classes) float32. Resizing to the model's input, normalisation and softmax are part of it.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from suite.errors import InputError, WorkError, as_clause
from suite.models.backbones import Stage
from suite.models.preprocessing import resize
from suite.spec import Preprocess

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

INPUT, OUTPUT = "images", "probabilities"  # names in the ONNX graph

OPSET = 18
"""Version of ONNX's operators. From 22 on, onnxruntime does not fuse an int8 MaxPool with its neighbours."""

EXAMPLES = 2  # pictures that the model is traced with; PyTorch takes a size of 1 as fixed


class Graph(nn.Module):
    """From stored pictures (B, C, stored, stored) uint8 to probabilities (B, classes), on the CPU in float32."""

    gain: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, expects: Preprocess) -> None:
        super().__init__()
        self.model, self.expects = inference_form(model), expects
        mean = torch.tensor(expects.mean).view(1, -1, 1, 1)
        std = torch.tensor(expects.std).view(1, -1, 1, 1)
        self.register_buffer("gain", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(resize(images, self.expects) * self.gain + self.offset).softmax(1)


class _Folded(nn.Module):
    """A `Stage` with its norm folded into the convolution, and ReLU before pooling.

    Runtimes fuse a ReLU only with the convolution that it follows directly.
    """

    def __init__(self, conv: nn.Conv2d, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool = conv, pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.conv(x)))


def inference_form(model: nn.Module) -> nn.Module:
    """A copy of the model in evaluation mode on the CPU that computes the same in a form that runtimes fuse."""
    copied = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    for name, module in list(copied.named_modules()):
        if isinstance(module, Stage) and (folded := _folded(module)) is not None:
            copied.set_submodule(name, folded)
        elif getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False  # tracing an operation in place takes several times as long
    return copied


def _folded(stage: Stage) -> _Folded | None:
    """None where the norm has a negative gain, so that it does not commute with max pooling."""
    conv, norm = stage.conv, stage.norm
    if isinstance(norm, nn.BatchNorm2d):
        if isinstance(stage.pool, nn.MaxPool2d) and not bool((norm.weight >= 0).all()):
            return None
        conv = fuse_conv_bn_eval(conv, norm)
    return _Folded(conv, stage.pool)


def traced(model: nn.Module, expects: Preprocess) -> ExportedProgram:
    """The `Graph` of a trained model by torch.export, for batches of any size.

    Raises InputError for a model that cannot be traced.
    """
    pictures = torch.zeros(EXAMPLES, expects.channels, expects.stored, expects.stored, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own modules, about themselves
            return torch.export.export(Graph(model, expects), (pictures,), dynamic_shapes=({0: batch},))
    except Exception as error:  # of many kinds, some of them torch's own
        raise InputError(
            f"This model cannot be written as a graph, since torch.export does not take it: {as_clause(error)}."
        ) from error


def write_onnx(path: Path, program: ExportedProgram) -> None:
    """Write a traced `Graph` as an ONNX file. It takes 3 to 15 s.

    Raises InputError where the extra "onnx" is not installed or an operation of the model has no form in ONNX, and
    WorkError where the file is larger than 2 GB, which one ONNX file cannot be.
    """
    require_onnx()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except Exception as error:
        raise InputError(f"This model cannot be written as ONNX: {as_clause(error)}.") from error
    import onnx

    model: ModelProto = found.model_proto
    slim(model)
    try:
        onnx.save(model, path)
    except ValueError as error:  # of protobuf
        raise WorkError(f"This model cannot be written as one ONNX file: {as_clause(error)}.") from error


def slim(model: ModelProto) -> None:
    """Remove what no runtime needs: the exporter's notes on each node, with paths of this machine, and shapes that
    follow from others."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")


def require_onnx() -> None:
    """Raises InputError where a library of the extra "onnx" is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ONNX needs the library {error.name}, which is not installed: pip install 'mnist-suite[onnx]'"
        ) from None
