"""Running the graphs of `suite.models.onnx_graph` in onnxruntime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.errors import InputError, as_clause
from suite.models.onnx_graph import INPUT, OUTPUT, require_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

QUIET = 3  # onnxruntime's level of messages: errors only


def session(model: Path | bytes, threads: int = 0) -> Any:
    """An onnxruntime.InferenceSession of a file or its content, with `threads` threads; 0: as many as cores.

    Raises InputError where the extra "onnx" is not installed, or onnxruntime cannot read the model.
    """
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    try:
        given = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, which have no common base class
        what = "The model" if isinstance(model, bytes) else str(model)
        raise InputError(f"{what} cannot be run by onnxruntime: {as_clause(error)}.") from error


def runs(found: Any, output: str, images: np.ndarray, batch: int) -> np.ndarray:
    """One output (N, ...) of a session for stored pictures (N, C, H, W) uint8, computed in batches."""
    parts = [found.run([output], {INPUT: images[i : i + batch]})[0] for i in range(0, len(images), batch)]
    return np.concatenate(parts)


def logits_session(path: Path, threads: int = 0) -> tuple[Any, str]:
    """A session of a file with its logits as a second output, and the name of that output.

    Raises InputError as `session` does.
    """
    import onnx

    model = onnx.load(path)
    name = logits_name(model)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return session(model.SerializeToString(), threads), name


def logits_name(model: ModelProto) -> str:
    """The name of what the softmax at the end of the graph takes."""
    return next(node.input[0] for node in model.graph.node if OUTPUT in node.output)
