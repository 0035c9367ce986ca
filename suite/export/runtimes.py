"""What runs an exported model: one function from stored pictures to probabilities for each format of its file.

PyTorch runs `safetensors` and `torch-export`, ONNX Runtime runs `onnx` and `int8`. Each is imported where it is used:
ONNX Runtime loads in a tenth of the time that PyTorch takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.errors import InputError, first_line
from suite.export.card import FILES, Card
from suite.hardware.cores import cores
from suite.spec import Format
from suite.store.files import file_sha256

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Runtime:
    """A loaded model."""

    format: Format
    device: str
    run: Callable[[np.ndarray], np.ndarray]  # (B, C, stored, stored) uint8 -> (B, classes) float32 probabilities


def formats(folder: Path) -> Sequence[Format]:
    """The formats that an export holds, in the order in which one is chosen: first the trained model's own numbers."""
    return [name for name, file in FILES.items() if (folder / file).is_file()]


def open_runtime(
    folder: Path, card: Card, wanted: str | None = None, *, device: str = "cpu", threads: int | None = None
) -> Runtime:
    """Load an exported model.

    Args:
        folder: the export that `card` describes.
        wanted: a key of FILES; by default the first one that is there.
        device: as on the command line; formats other than safetensors run on the CPU.
        threads: of one run on the CPU; by default all cores.

    Raises InputError where the file is missing or does not do what the card says, and where its library is missing.
    """
    there = formats(folder)
    known: dict[str, Format] = {name: name for name in FILES}
    if wanted is not None and wanted not in known:
        raise InputError(f"There is no format '{wanted}'; take {', '.join(FILES)}.")
    chosen: Format = known[wanted] if wanted is not None else there[0] if there else "safetensors"
    if chosen not in there:
        raise InputError(
            f"{folder} holds no {FILES[chosen]}, so --format {chosen} cannot be used; it holds "
            f"{', '.join(there) or 'no model'}. `mnist-suite export --format {chosen}` writes it."
        )
    if chosen == "safetensors":
        return _safetensors(folder, card, device, threads)
    if device not in ("cpu", "auto"):
        raise InputError(f"--device {device}: format {chosen} runs on the CPU; take --format safetensors.")
    path = folder / FILES[chosen]
    _check_sha256(path, card, chosen)
    run = _torch_export(path, threads) if chosen == "torch-export" else _onnx(path, threads)
    found = run(np.zeros((2, card.preprocess.channels, *[card.preprocess.stored] * 2), np.uint8))
    if found.shape != (2, len(card.classes)):
        raise InputError(f"{path} is not the file its card describes: it answers {found.shape[1:]} for one picture.")
    return Runtime(chosen, "cpu", run)


def _check_sha256(path: Path, card: Card, chosen: Format) -> None:
    stated = card.formats.get(chosen)
    if stated is not None and file_sha256(path) != stated.sha256:
        raise InputError(f"{path} is not the file its card describes (SHA-256 differs); export the model again.")


def _safetensors(folder: Path, card: Card, device: str, threads: int | None) -> Runtime:
    from suite.export.loading import load
    from suite.hardware.device import pick
    from suite.models.preprocessing import evaluation_preparer

    place = pick(device)
    model = load(folder).to(place)
    prepare = evaluation_preparer(card.preprocess, place)

    def work(images: torch.Tensor) -> torch.Tensor:
        return model(prepare(images.to(place))).float().softmax(1)

    return Runtime("safetensors", str(place), _by_torch(work, threads))


def _torch_export(path: Path, threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    try:
        program = torch.export.load(path).module()
    except Exception as error:  # of many types: the archive, its programs, its tensors
        raise InputError(f"{path} cannot be loaded by torch.export: {first_line(error)}") from None
    return _by_torch(program, threads)


def _by_torch(work: Callable[[torch.Tensor], torch.Tensor], threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    count = threads or torch.get_num_threads()

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(count)  # of this thread; threads that read pictures have set it to one
        try:
            return work(torch.from_numpy(images)).cpu().numpy()
        except RuntimeError as error:
            raise InputError(f"The model cannot be used on these pictures: {first_line(error)}") from None

    return run


def _onnx(path: Path, threads: int | None) -> Callable[[np.ndarray], np.ndarray]:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path.name} needs ONNX Runtime: pip install 'mnist-suite[onnx]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.log_severity_level = 4  # what is wrong is raised
    try:
        session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many types, all of the library's own
        raise InputError(f"{path} cannot be loaded by ONNX Runtime: {first_line(error)}") from None

    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        try:
            return session.run(None, {name: images})[0]
        except Exception as error:
            raise InputError(f"The model cannot be used on these pictures: {first_line(error)}") from None

    return run
