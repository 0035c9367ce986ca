"""Frozen features: computed once per (weights, data, rows, input, precision), cached by content hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from suite.models.backbones import embed
from suite.models.preprocessing import Preprocess, evaluation_preparer
from suite.store.files import cache_dir

VERSION = 1  # raise when the same inputs would give other features


def fingerprint(model: nn.Module) -> str:
    """A hash of every weight and buffer."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def extract(model: nn.Module, images: Tensor, expects: Preprocess, dtype: torch.dtype) -> Generator[int, None, Tensor]:
    """Features (N, D) float32 of images (N, C, H, W) uint8, both on the model's device.

    Yields, twice a second, how many images are done.
    """
    device = images.device
    prepare = evaluation_preparer(expects, device)
    model.eval().to(memory_format=torch.channels_last)
    batch = 128 if device.type == "cpu" else 2000
    parts: list[Tensor] = []
    spoke = time.monotonic()
    for start in range(0, len(images), batch):
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts.append(embed(model, prepare(images[start : start + batch])).float())
        if time.monotonic() - spoke > 0.5:
            yield start + batch
            spoke = time.monotonic()
    return torch.cat(parts)


def cached(
    model: nn.Module, images: Tensor, expects: Preprocess, dtype: torch.dtype, *, images_hash: str
) -> Generator[int, None, tuple[Tensor, bool]]:
    """`extract`, or what an earlier call with the same content left; returns also whether it was there.

    `images_hash` stands for the pixels. Processes that want the same features at once wait for the first;
    while one waits it yields -1.
    """
    facts = [VERSION, fingerprint(model), images_hash, len(images), asdict(expects), str(dtype), images.device.type]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    if (found := _find(folder, key, len(images), images.device)) is not None:
        return found, True
    with open(folder / f"{key}.lock", "w") as lock:
        while not _locked(lock):
            yield -1
            if key not in _extracting:  # by another process: ask again later
                time.sleep(0.5)
        if (found := _find(folder, key, len(images), images.device)) is not None:
            return found, True
        for left in folder.glob(f".{key}.*.tmp"):  # by a process that was killed while writing
            left.unlink(missing_ok=True)
        _extracting.add(key)
        try:
            features = yield from extract(model, images, expects, dtype)
        finally:
            _extracting.discard(key)
        temporary = folder / f".{key}.{os.getpid()}.tmp"
        try:
            values = features.cpu().numpy()
            with open(temporary, "wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, folder / f"{key}-{_digest(values)}.npy")
        except OSError:  # a full disk costs the cache, not the trial
            temporary.unlink(missing_ok=True)
    kept = _find(folder, key, len(images), images.device)  # as later trials will have it, the very same tensor
    return features if kept is None else kept, False


_extracting: set[str] = set()  # by trials of this very process, which wait for each other's turn


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()[:32]


# Banks that this process has compared with their hash, by name, size, time and device: one tensor for all trials.
_whole: dict[tuple[str, int, int, torch.device], Tensor] = {}

BANKS = 4  # of them kept: the two splits of two backbones


def _find(folder: Path, key: str, rows: int, device: torch.device) -> Tensor | None:
    """On the device, or on the CPU memory-mapped, copy on write, so that nothing changes the cached file; None unless
    it is as it was written."""
    for path in folder.glob(f"{key}-*.npy"):
        try:
            status = path.stat()
            found = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        state = (path.name, status.st_size, status.st_mtime_ns, device)
        if state not in _whole and path.stem == f"{key}-{_digest(found)}" and found.ndim == 2 and len(found) == rows:
            while len(_whole) >= BANKS:
                del _whole[next(iter(_whole))]
            _whole[state] = torch.from_numpy(found).to(device)
        if state in _whole:
            return _whole[state]
    return None
