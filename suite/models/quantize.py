"""Static quantisation of an ONNX graph to 8-bit integers by onnxruntime.

Weights are signed, with a scale for each output channel; activations are unsigned, with ranges found on calibration
pictures. The operators are those of Jacob et al., 2018 (arXiv:1712.05877). What is before the first layer and from the
classifier on stays in float32: the classifier is small, and rounded scores cost the most answers.

The first convolution is quantised too, although onnxruntime runs one of a single channel faster in float32: behind it,
it would quantise before the max pooling, which is then not fused.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from suite.errors import InputError, as_clause
from suite.models.onnx_graph import INPUT, OUTPUT, require_onnx, slim

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LAYERS = ("Conv", "Gemm", "MatMul")  # operators with weights

BETWEEN = ("Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Flatten", "Concat")
"""Operators that stay in integers between layers. Not in transformers: the sum of many blocks needs more bits."""


class Way(NamedTuple):
    """A way to quantise: how the range of an activation is found, and how many layers at the input stay in float32."""

    name: str
    method: str  # of onnxruntime
    options: dict[str, Any]
    float_layers: int = 0


WAYS = (
    Way("minmax", "MinMax", {}),
    Way("percentile 99.99", "Percentile", {"CalibPercentile": 99.99}),
    Way("percentile 99.9", "Percentile", {"CalibPercentile": 99.9}),
    Way("minmax, first 3 layers in float32", "MinMax", {}, float_layers=3),
)
"""In the order in which they are tried. Onnxruntime's entropy method finds the same ranges as minmax for the suite's
networks and EfficientNet-Lite0."""

PICTURES = 512  # calibration pictures that are used at most

VALUES = 2**19  # pixels of the pictures that are used: percentiles need all activations of all of them in memory

BATCH = 32


class Quantized(NamedTuple):
    """A quantised file, and how its ranges were found."""

    path: Path
    calibration: str


def calibration_count(size: int) -> int:
    """Pictures that calibrate a model with inputs of `size` pixels."""
    return max(8, min(PICTURES, VALUES // size**2))


def quantized(source: Path, folder: Path, pictures: np.ndarray) -> Iterator[Quantized]:
    """The ONNX file `source` in 8 bits, once for each of `WAYS`, in files in `folder`.

    Each takes seconds. The caller measures which is best, and stops when one is good enough. Weights have 7 bits on
    CPUs without VNNI instructions, which add pairs of products in 16 bits, where 8 can overflow.

    Args:
        source: a file that `onnx_graph.write_onnx` wrote.
        folder: an existing folder for the results.
        pictures: (N, C, stored, stored) uint8, of the training part.

    Raises InputError where the extra "onnx" is not installed, or onnxruntime cannot quantise the graph.
    """
    require_onnx()
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(source)
    add_pre_process_metadata(model)  # the exporter has folded constants and norms; without it there is a warning
    prepared = folder / "float.onnx"
    onnx.save(model, prepared)
    shared = {"CalibTensorRangeSymmetric": False, "MatMulConstBOnly": True}
    kinds = LAYERS if _is_transformer(model) else LAYERS + BETWEEN
    for number, way in enumerate(WAYS):
        to = folder / f"{number}.onnx"
        try:
            with _silent():
                quantization.quantize_static(
                    prepared,
                    to,
                    _reader(pictures),
                    quant_format=quantization.QuantFormat.QDQ,
                    op_types_to_quantize=list(kinds),
                    nodes_to_exclude=kept_in_float(model, way.float_layers),
                    per_channel=True,
                    reduce_range=not _has_vnni(),
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod[way.method],
                    extra_options={**shared, **way.options},
                )
        except Exception as error:  # of many kinds
            raise InputError(f"This model cannot be quantised by onnxruntime: {as_clause(error)}.") from error
        done = onnx.load(to)
        slim(done)
        onnx.save(done, to)
        yield Quantized(to, f"{way.name}; {len(pictures)} training pictures")


def _has_vnni() -> bool:
    """Whether the CPU adds 8-bit products in 32 bits; where it cannot be told, as on ARM, they do not overflow."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "avx2" not in flags or "vnni" in flags


def kept_in_float(model: ModelProto, first: int) -> list[str]:
    """Names of the nodes before the layer number `first`, counted from 0, and from the classifier on."""
    nodes = list(model.graph.node)
    layers = [i for i, node in enumerate(nodes) if _has_weights(model, node)]
    if len(layers) < 2:
        raise InputError("This model has fewer than two layers with weights, so there is nothing to quantise.")
    makers = {output: i for i, node in enumerate(nodes) for output in node.output}
    place: int | None = makers[OUTPUT]
    kept = {place}
    while place is not None and place not in layers:  # back from the probabilities to the classifier
        place = next((makers[name] for name in nodes[place].input if name in makers), None)
        kept |= set() if place is None else {place}
    kept |= set(range(layers[first] if first < len(layers) - 1 else layers[0]))
    return [nodes[i].name for i in sorted(kept)]


def _has_weights(model: ModelProto, node: NodeProto) -> bool:
    weights = {tensor.name for tensor in model.graph.initializer}
    return node.op_type in LAYERS and any(name in weights for name in node.input)


def _is_transformer(model: ModelProto) -> bool:
    return any(node.op_type in ("LayerNormalization", "RMSNormalization") for node in model.graph.node)


def _reader(pictures: np.ndarray) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            # Batches of one size: histograms of activations are stacked. Fewer pictures than one batch make one.
            self.batches = iter(range(0, max(1, len(pictures) - BATCH + 1), BATCH))

        def get_next(self) -> Any:
            start = next(self.batches, None)
            return None if start is None else {INPUT: pictures[start : start + BATCH]}

    return Reader()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """onnxruntime prints and logs what it calibrates."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
