"""The formats of an export beside safetensors: ONNX, ONNX in 8 bits, and torch.export.

Each file is written, read back in its own runtime, and compared with the trained model on validation pictures, or on
random ones where they are not on this machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.data import cache
from suite.data.datasets import search_splits, training_files, validation_files
from suite.data.inspection import in_parallel
from suite.data.pictures import stored_picture
from suite.data.registry import is_own
from suite.errors import InputError, WorkError
from suite.export.card import FILES
from suite.export.predict import batch_size
from suite.models import onnx_graph, onnx_runtime, quantize
from suite.models.preprocessing import evaluation_preparer
from suite.spec import Format, FormatFigures, Preprocess, Trial
from suite.store.files import file_sha256

CPU = torch.device("cpu")

TOLERANCE = 1e-4  # of a logit in float32, relative to the largest one where that is above 1

LARGEST_LOSS = 0.02  # of accuracy that an int8 file may cost to be published

GOOD_ENOUGH = 0.0005  # loss of accuracy at which no other way to quantise is tried

PIXELS = 2**24  # of the validation pictures that formats are compared on: all 6,000 of MNIST at 28 px

SMALLEST = 1e-30  # probability that a logarithm is taken of

PASSES, SECONDS = 20, 1.0  # of one latency; at least 3 passes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Examples:
    """Stored pictures (N, C, stored, stored) uint8, and their labels (N,); None for random pictures."""

    images: np.ndarray
    labels: np.ndarray | None


@dataclass(frozen=True)
class Compared:
    """What one runtime answers: values (N, classes) to compare, and a function from stored pictures to probabilities.

    Values are log-probabilities where the runtime gives nothing else.
    """

    values: np.ndarray
    kind: str  # "logits" or "log-probabilities"
    answer: Callable[[np.ndarray], object]
    runtime: str


def validation_examples(trial: Trial, expects: Preprocess) -> Examples:
    """The trial's validation pictures, spread over them where they are many; random ones where they are not there."""
    most = max(64, PIXELS // expects.size**2)
    if (found := _examples(trial, expects, most, part="validation")) is not None:
        return found
    shape = (64, expects.channels, expects.stored, expects.stored)
    return Examples(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), None)


def calibration_pictures(trial: Trial, expects: Preprocess) -> np.ndarray:
    """Pictures of the training part for `quantize`. Raises InputError where they are not on this machine."""
    found = _examples(trial, expects, quantize.calibration_count(expects.size), part="training")
    if found is None:
        raise InputError(
            f"int8 needs training pictures of {trial.dataset} to find the ranges of activations, and they are not on "
            "this machine, or have changed. `mnist-suite data fetch` fetches a known data set; or leave out "
            "--format int8."
        )
    return found.images


def _examples(trial: Trial, expects: Preprocess, most: int, *, part: str) -> Examples | None:
    """Nothing is fetched. Pictures that have changed since the trial count as gone."""
    if not is_own(trial.dataset):
        if any(status.state != "ok" for status in cache.verify(trial.dataset, quick=True)[:2]):
            return None
        splits = search_splits(trial.dataset, limit=trial.limit)
        given = splits.validation if part == "validation" else splits.train
        rows = _spread(len(given.labels), most)
        return Examples(np.ascontiguousarray(given.images[rows]), given.labels[rows])
    try:
        listed = validation_files if part == "validation" else training_files
        files, labels, data_hash = listed(trial.dataset, limit=trial.limit)
        if data_hash != trial.data_hash:
            return None
        rows = _spread(len(files), most)
        images = np.stack(list(in_parallel(lambda i: stored_picture(files[i], expects), rows.tolist())))
    except (InputError, OSError):
        return None
    return Examples(images, labels[rows])


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def write_formats(
    folder: Path, wanted: Sequence[Format], model: nn.Module, expects: Preprocess, trial: Trial, say: Say
) -> dict[Format, FormatFigures]:
    """Write the wanted formats to the folder, which holds safetensors already, and measure all of them.

    `say` is told what begins, where it may take seconds.

    Raises InputError where a library is missing or the model cannot be converted, WorkError where what is read back
    differs by more than `TOLERANCE`, or int8 costs more accuracy than `LARGEST_LOSS`.
    """
    if {"onnx", "int8"} & set(wanted):
        onnx_graph.require_onnx()
    pictures = calibration_pictures(trial, expects) if "int8" in wanted else None
    say("reading validation pictures")
    given = validation_examples(trial, expects)
    say("comparing safetensors")
    trained = _torch(model, expects, given.images)
    found: dict[Format, FormatFigures] = {"safetensors": _figures(folder, "safetensors", trained, trained, given)}
    say("tracing the model")
    program = onnx_graph.traced(model, expects)
    if "torch-export" in wanted:
        say("writing torch-export")
        torch.export.save(program, folder / FILES["torch-export"])
        exported = _torch_export(folder / FILES["torch-export"], given.images, batch_size(expects, CPU))
        found["torch-export"] = _exact(_figures(folder, "torch-export", exported, trained, given), trained)
    if pictures is None and "onnx" not in wanted:
        return found
    say("writing ONNX")
    onnx_graph.write_onnx(folder / FILES["onnx"], program)
    exported = _onnx(folder / FILES["onnx"], given.images, batch_size(expects, CPU))
    figures = _exact(_figures(folder, "onnx", exported, trained, given), trained)
    if "onnx" in wanted:
        found["onnx"] = figures
    if pictures is not None:
        found["int8"] = _int8(folder, pictures, trained, given, expects, say)
    if "onnx" not in wanted:
        (folder / FILES["onnx"]).unlink()
    return found


def _int8(
    folder: Path, pictures: np.ndarray, trained: Compared, given: Examples, expects: Preprocess, say: Say
) -> FormatFigures:
    """The way to quantise that is best on the compared pictures, as model.int8.onnx. Raises WorkError."""
    labels = trained.values.argmax(1) if given.labels is None else given.labels
    wanted = _accuracy(trained.values, labels)
    best, best_of, calibration = -1.0, b"", ""
    with tempfile.TemporaryDirectory() as scratch:
        say(f"quantising: {quantize.WAYS[0].name}")
        ways = quantize.quantized(folder / FILES["onnx"], Path(scratch), pictures)
        for number, one in enumerate(ways, 1):
            values = _onnx(one.path, given.images, batch_size(expects, CPU)).values
            accuracy = _accuracy(values, labels)
            if accuracy > best:
                best, best_of, calibration = accuracy, one.path.read_bytes(), one.calibration
            if best >= wanted - GOOD_ENOUGH or number == len(quantize.WAYS):
                break
            say(f"quantising: {quantize.WAYS[number].name}")
    if wanted - best > LARGEST_LOSS:
        raise WorkError(
            f"int8 was not published: its accuracy on {len(labels)} validation pictures is {100 * best:.2f} %, that of "
            f"the model {100 * wanted:.2f} %; more than {100 * LARGEST_LOSS:g} points are lost. Export it as onnx."
        )
    path = folder / FILES["int8"]
    path.write_bytes(best_of)
    exported = _onnx(path, given.images, batch_size(expects, CPU))
    return _figures(folder, "int8", exported, trained, given, calibration)


def _accuracy(values: np.ndarray, labels: np.ndarray) -> float:
    return float((values.argmax(1) == labels).mean())


def _exact(figures: FormatFigures, trained: Compared) -> FormatFigures:
    """The figures, of a format in float32. Raises WorkError where it differs from the trained model."""
    allowed = TOLERANCE * max(1.0, float(np.abs(trained.values).max()))
    if not figures.difference <= allowed:
        raise WorkError(
            f"The export was not published: {figures.difference_of} of {figures.file}, read back by {figures.runtime}, "
            f"differ by up to {figures.difference:.2g}; {allowed:.2g} are allowed."
        )
    return figures


def _figures(
    folder: Path, name: Format, exported: Compared, trained: Compared, given: Examples, calibration: str | None = None
) -> FormatFigures:
    ours, same = exported.values, trained.values
    if exported.kind != "logits":
        same = _log_probabilities(same)
        both = (ours > np.log(SMALLEST)) & (same > np.log(SMALLEST))  # float32 knows no smaller probabilities
        ours, same = np.where(both, ours, 0.0), np.where(both, same, 0.0)
    path = folder / FILES[name]
    return FormatFigures(
        file=path.name,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        runtime=exported.runtime,
        compared_on="random pictures" if given.labels is None else "validation pictures",
        images=len(given.images),
        equal=_accuracy(exported.values, trained.values.argmax(1)),
        difference=float(np.abs(ours - same).max()),
        difference_of="logits" if exported.kind == "logits" else "log-probabilities",
        accuracy=None if given.labels is None else _accuracy(exported.values, given.labels),
        latency_seconds=_latency(exported.answer, given.images, 1),
        latency_256_seconds=_latency(exported.answer, given.images, 256),
        threads=torch.get_num_threads(),
        calibration=calibration,
    )


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).double().log_softmax(1).numpy()


def _latency(answer: Callable[[np.ndarray], object], images: np.ndarray, batch: int) -> float:
    """Median seconds of a pass of the first `batch` pictures, repeated where there are fewer, after a warm-up."""
    pictures = np.resize(images[:batch], (batch, *images.shape[1:]))
    answer(pictures)
    times: list[float] = []
    while len(times) < 3 or (len(times) < PASSES and sum(times) < SECONDS):
        begin = time.perf_counter()
        answer(pictures)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _torch(model: nn.Module, expects: Preprocess, images: np.ndarray) -> Compared:
    prepare = evaluation_preparer(expects, CPU)
    model.eval()

    @torch.inference_mode()
    def logits(pictures: Tensor) -> Tensor:
        return model(prepare(pictures))

    parts = torch.from_numpy(images).split(batch_size(expects, CPU))
    values = torch.cat([logits(part) for part in parts]).numpy()
    return Compared(
        values, "logits", lambda given: logits(torch.from_numpy(given)).softmax(1), f"torch {torch.__version__}"
    )


def _torch_export(path: Path, images: np.ndarray, batch: int) -> Compared:
    module: Any = torch.export.load(path).module()

    @torch.inference_mode()
    def answer(given: np.ndarray) -> Tensor:
        return module(torch.from_numpy(given))

    parts = [answer(images[i : i + batch]).double() for i in range(0, len(images), batch)]
    values = torch.cat(parts).clamp_min(SMALLEST).log().numpy()
    return Compared(values, "log-probabilities", answer, f"torch {torch.__version__}")


def _onnx(path: Path, images: np.ndarray, batch: int) -> Compared:
    import onnxruntime

    threads = torch.get_num_threads()
    session, name = onnx_runtime.logits_session(path, threads)
    values = onnx_runtime.runs(session, name, images, batch)
    plain = onnx_runtime.session(path, threads)
    return Compared(
        values,
        "logits",
        lambda given: plain.run([onnx_graph.OUTPUT], {onnx_graph.INPUT: given}),
        f"onnxruntime {onnxruntime.__version__}",
    )
