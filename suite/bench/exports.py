"""Benchmark of the formats that a model is exported to: PyTorch, ONNX and ONNX in 8 bits, in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.bench.measure import Figure, ratio, timed

if TYPE_CHECKING:
    from torch import nn

    from suite.spec import Preprocess

    Model = tuple[nn.Module, Preprocess]

PASSES = {1: 50, 256: 2}  # in one round, by batch size; the fastest counts

ROUNDS = 9  # after one to warm up


def exports() -> Iterator[Figure]:
    """`cnn`, and EfficientNet-Lite0 at 64 px, from stored pictures to probabilities, with one thread and with two.

    Their weights are random: times and sizes do not depend on them.
    """
    import torch

    from suite.bench.workload import LITE, mnist_model
    from suite.data.datasets import search_splits
    from suite.data.fetch import fetch
    from suite.hardware.device import cores

    fetch("mnist")
    pictures = search_splits("mnist").train.images
    for name, backbone, size in (("cnn", "cnn", None), ("lite0", LITE, 64)):
        model, expects = mnist_model(backbone, torch.device("cpu"), seed=0, size=size)
        with tempfile.TemporaryDirectory() as folder:
            files = _written(Path(folder), (model.eval(), expects), pictures)
            sizes = {kind: file.stat().st_size for kind, file in files.items()}
            for kind, value in sizes.items():
                yield f"export.{name}.{kind}.size", value / 1e6, "MB", "file"
            yield f"export.{name}.size.ratio", sizes["torch"] / sizes["int8"], "x", "safetensors to int8"
            for threads in sorted({1, min(2, cores())}):
                yield from _times(f"export.{name}", (model, expects), files, pictures, threads)


def _written(folder: Path, given: Model, pictures: object) -> dict[str, Path]:
    """The model's files in `folder`, by what runs them."""
    import numpy as np
    from safetensors.torch import save_file

    from suite.models import onnx_graph, quantize

    assert isinstance(pictures, np.ndarray)
    model, expects = given
    files = {"torch": folder / "model.safetensors", "onnx": folder / "model.onnx"}
    save_file(model.state_dict(), files["torch"])
    onnx_graph.write_onnx(files["onnx"], onnx_graph.traced(model, expects))
    calibration = pictures[: quantize.calibration_count(expects.size)]
    first = next(quantize.quantized(files["onnx"], folder, calibration))
    return files | {"int8": first.path}


def _times(name: str, given: Model, files: dict[str, Path], pictures: object, threads: int) -> Iterator[Figure]:
    import numpy as np
    import torch

    from suite.models import onnx_runtime
    from suite.models.onnx_graph import INPUT, OUTPUT
    from suite.models.preprocessing import evaluation_preparer

    assert isinstance(pictures, np.ndarray)
    model, expects = given
    prepare = evaluation_preparer(expects, torch.device("cpu"))
    sessions = {kind: onnx_runtime.session(files[kind], threads) for kind in ("onnx", "int8")}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)

    @torch.inference_mode()
    def in_torch(images: np.ndarray) -> object:
        return model(prepare(torch.from_numpy(images))).softmax(1)

    def in_onnx(session: Any) -> Callable[[np.ndarray], object]:
        return lambda images: session.run([OUTPUT], {INPUT: images})

    ways = {"torch": in_torch, **{kind: in_onnx(session) for kind, session in sessions.items()}}
    try:
        for batch, passes in PASSES.items():
            images = pictures[:batch]
            found: dict[str, list[float]] = {kind: [] for kind in ways}
            for _ in range(ROUNDS + 1):  # in turn; other load on the machine can only add to a pass
                for kind, way in ways.items():
                    found[kind].append(_fastest(way, images, passes))
            for kind, seconds in found.items():
                how = f"fastest of {ROUNDS} rounds of {passes}, threads: {threads}"
                yield f"{name}.{threads}t.b{batch}.{kind}", 1e3 * min(seconds[1:]), "ms", how
            for plain, ours in (("torch", "onnx"), ("onnx", "int8"), ("torch", "int8")):
                yield ratio(f"{name}.{threads}t.b{batch}.{plain}-{ours}", found[plain][1:], found[ours][1:])
    finally:
        torch.set_num_threads(before)


def _fastest(way: Callable[[Any], object], images: object, passes: int) -> float:
    return min(timed(lambda: way(images)) for _ in range(passes))
