"""Checkpoints: the state of a training as safetensors and JSON, in two generations with their SHA-256.

The tensors are written to the file of the older generation, then checkpoint.json, which lists both, is replaced. So at
least one complete generation exists at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from suite.errors import InputError
from suite.spec import Record
from suite.store.files import remove_leftovers, write_atomic

SLOTS = ("last.safetensors", "last.1.safetensors")

INDEX = "checkpoint.json"

CHECKPOINT_SECONDS = 30.0  # between two checkpoints: the most that is trained again after a crash


class Saved(NamedTuple):
    """A training state as it was saved."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def checkpoint_seconds() -> float:
    """$MNIST_SUITE_CHECKPOINT_SECONDS, or `CHECKPOINT_SECONDS`. Raises InputError."""
    text = os.environ.get("MNIST_SUITE_CHECKPOINT_SECONDS", "")
    try:
        return max(0.0, float(text)) if text else CHECKPOINT_SECONDS
    except ValueError:
        raise InputError(f"MNIST_SUITE_CHECKPOINT_SECONDS is {text[:80]!r}, which is no number of seconds.") from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write a safetensors file atomically; returns its SHA-256. All state dicts are written by this function.

    Tensors that share memory, as those of modules that are registered under two names do, are written once for each
    name: the format has no sharing, and every reader finds all names.
    """
    plain: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if place in written else value
        written.add(place)
    data = save_bytes(plain, metadata)
    write_atomic(path, data)
    return sha256(data)


def _generations(directory: Path) -> list[dict[str, Any]]:
    try:
        generations = json.loads((directory / INDEX).read_bytes())["generations"]
        return [g for g in generations if g["file"] in SLOTS and g["check"] == _check(g)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _check(generation: dict[str, Any]) -> str:
    """SHA-256 of an entry of the index without its own checksum."""
    facts = [generation["file"], generation["sha256"], generation["numbers"]]
    return sha256(json.dumps(facts, sort_keys=True).encode())


def save(directory: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> str:
    """Write a new generation in place of the older one; returns the SHA-256 of its tensors. `numbers` is plain JSON."""
    kept = _generations(directory)[:1]
    slot = SLOTS[1] if kept and kept[0]["file"] == SLOTS[0] else SLOTS[0]
    digest = save_tensors(directory / slot, tensors)
    newest: dict[str, Any] = {"file": slot, "sha256": digest, "numbers": json.loads(json.dumps(numbers))}
    newest["check"] = _check(newest)
    write_atomic(directory / INDEX, json.dumps({"generations": [newest, *kept]}))
    return digest


def load(directory: Path) -> Saved | None:
    """The newest undamaged generation, or None."""
    for generation in _generations(directory):
        try:
            data = (directory / generation["file"]).read_bytes()
        except OSError:
            continue
        if sha256(data) == generation["sha256"]:
            return Saved(load_bytes(data), generation["numbers"])
    return None


def model_state(saved: Saved) -> dict[str, Tensor]:
    """The state dict of the model, as `training.state` puts it into the tensors of a checkpoint."""
    return {name.removeprefix("model."): value for name, value in saved.tensors.items() if name.startswith("model.")}


def passed(directory: Path) -> list[tuple[float, float]]:
    """(epochs, accuracy) of the complete short trainings that came before the saved state; none without one."""
    saved = load(directory)
    return [] if saved is None else [(epochs, accuracy) for epochs, accuracy in saved.numbers.get("rungs", [])]


def paused_record(directory: Path) -> Record | None:
    """The record of a trial that has just passed a short training, as it is if the trial ends there; None where the
    saved state is another one, or damaged."""
    saved = load(directory)
    if saved is None or "paused" not in saved.numbers:
        return None
    return Record.model_validate_json(saved.numbers["paused"])


def clear(directory: Path) -> None:
    """Remove the training state of a trial that is over. Its best weights stay."""
    for name in (INDEX, *SLOTS):
        (directory / name).unlink(missing_ok=True)
    tidy(directory)


def tidy(directory: Path) -> None:
    """Remove what attempts that were killed while writing left behind; what they trained on from stays."""
    remove_leftovers(directory, INDEX, *SLOTS, "best.safetensors", "validation.json", "SHA256SUMS", "result.json")
