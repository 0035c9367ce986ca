"""Checkpoints: safetensors and JSON, two generations, each named with its SHA-256.

A training state goes into whichever of two files is not the newest, then checkpoint.json is renamed into
place. Whatever moment the power fails, at least one complete generation stays.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from suite.store.files import remove_leftovers, write_atomic

SLOTS = ("last.safetensors", "last.1.safetensors")

INDEX = "checkpoint.json"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write a safetensors file as one step; returns its SHA-256."""
    data = save_bytes({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    write_atomic(path, data)
    return sha256(data)


def _generations(directory: Path) -> list[dict[str, Any]]:
    try:
        generations = json.loads((directory / INDEX).read_bytes())["generations"]
        return [g for g in generations if g["file"] in SLOTS and g["check"] == _check(g)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _check(generation: dict[str, Any]) -> str:
    """A checksum over the plain numbers, as the tensors have theirs."""
    facts = [generation["file"], generation["sha256"], generation["numbers"]]
    return sha256(json.dumps(facts, sort_keys=True).encode())


def save(directory: Path, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> str:
    """Add a generation and let the one before the last go; returns the new file's SHA-256."""
    kept = _generations(directory)[:1]
    slot = SLOTS[1] if kept and kept[0]["file"] == SLOTS[0] else SLOTS[0]
    digest = save_tensors(directory / slot, tensors)
    newest: dict[str, Any] = {"file": slot, "sha256": digest, "numbers": json.loads(json.dumps(numbers))}
    newest["check"] = _check(newest)
    write_atomic(directory / INDEX, json.dumps({"generations": [newest, *kept]}))
    return digest


def load(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest generation whose file is whole, or None."""
    for generation in _generations(directory):
        try:
            data = (directory / generation["file"]).read_bytes()
        except OSError:
            continue
        if sha256(data) == generation["sha256"]:
            return load_bytes(data), generation["numbers"]
    return None


def clear(directory: Path) -> None:
    """Drop the training state of a trial that is over; its best weights stay."""
    for name in (INDEX, *SLOTS):
        (directory / name).unlink(missing_ok=True)
    tidy(directory)


def tidy(directory: Path) -> None:
    """Remove what attempts that were killed while writing left behind; what they trained on from stays."""
    remove_leftovers(directory, INDEX, *SLOTS, "best.safetensors", "validation.json", "SHA256SUMS", "result.json")
