"""A trained model in 8-bit integers, as a module that answers by onnxruntime.

The ONNX file is a tensor of the module, so that the model is saved, hashed and loaded as any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.errors import InputError
from suite.models.onnx_graph import OUTPUT, traced, write_onnx
from suite.models.onnx_runtime import runs, session
from suite.models.quantize import quantized
from suite.spec import Preprocess

BATCH = 256  # pictures that onnxruntime is given at once


class Int8(nn.Module):
    """Model inputs (B, C, size, size) to logarithms of probabilities (B, classes), on the CPU.

    The graph takes whole numbers 0..255, as decoded pictures have them. Inputs that were resized lie between these and
    are rounded.
    """

    graph: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(self, graph: Tensor, expects: Preprocess, classes: int) -> None:
        """`graph` is the content of an ONNX file, bytes as a tensor of uint8; `expects` is what the model takes."""
        super().__init__()
        self.classes = classes
        self.register_buffer("graph", graph)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (expects.mean, expects.std))
        self.register_buffer("gain", 255 * std, persistent=False)
        self.register_buffer("offset", 255 * mean, persistent=False)
        self._session: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:  # memory is estimated there
            return x.new_zeros(len(x), self.classes)
        if self._session is None:
            self._session = session(self.graph.cpu().numpy().tobytes(), torch.get_num_threads())
        pixels = (x.float() * self.gain + self.offset).round().clamp(0, 255).to(torch.uint8)
        found = runs(self._session, OUTPUT, pixels.cpu().contiguous().numpy(), BATCH)
        return torch.from_numpy(found).to(x.device).clamp(min=1e-12).log()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # a session cannot be copied


def quantize(
    model: nn.Module,
    expects: Preprocess,
    classes: int,
    pictures: np.ndarray,
    accuracy: Callable[[Int8], float],
    least: float,
) -> Int8:
    """`model` in 8 bits: by the first way of `suite.models.quantize` that reaches `least` accuracy, else the best.

    Args:
        model: takes inputs as `expects` says.
        classes: that it tells apart.
        pictures: (N, C, size, size) uint8, of the training part, for calibration.
        accuracy: measures a candidate.
        least: accuracy that is good enough.

    Raises InputError where the extra "onnx" is missing, or the model cannot be written as a graph or quantised.
    """
    best: tuple[float, Int8] | None = None
    given = expects.model_copy(update={"stored": expects.size})
    with tempfile.TemporaryDirectory(prefix="mnist-suite-int8-") as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(source, traced(model, given))
        for one in quantized(source, Path(folder), pictures):
            content = np.frombuffer(one.path.read_bytes(), dtype=np.uint8).copy()
            candidate = Int8(torch.from_numpy(content), expects, classes)
            reached = accuracy(candidate)
            if best is None or reached > best[0]:
                best = reached, candidate
            if reached >= least:
                break
    if best is None:
        raise InputError("This model cannot be quantised: onnxruntime has no way to do so.")
    return best[1]
