"""Frozen features, computed once and cached on disk under a hash of weights, images, preprocessing and precision."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from suite.hardware.activations import evaluation_batch
from suite.hardware.device import synchronize
from suite.hardware.memory import channels_last
from suite.models.backbones import embed
from suite.models.preprocessing import evaluation_preparer
from suite.models.streaming import Streamed
from suite.spec import Preprocess
from suite.store.files import cache_dir, scratch_dir

VERSION = 1  # to be raised when the same inputs give other features


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def extract(
    model: nn.Module, images: Tensor | Streamed, expects: Preprocess, dtype: torch.dtype
) -> Generator[int, None, Tensor]:
    """Features (N, D) float32 of images (N, C, H, W) uint8, both on the model's device.

    Yields the number of images done so far, about twice a second.
    """
    device = images.device
    prepare = evaluation_preparer(expects, device)
    channels_last(model.eval())
    batch = evaluation_batch(model, expects.shape, device, most=128 if device.type == "cpu" else 2000)
    parts: list[Tensor] = []
    reported = time.monotonic()
    for start in range(0, len(images), batch):
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts.append(embed(model, prepare(images[start : start + batch])).float())
        if time.monotonic() - reported > 0.5:
            synchronize(device)  # what is reported as done is done, not only queued
            yield start + batch
            reported = time.monotonic()
    return torch.cat(parts)


def cached(
    model: nn.Module, images: Tensor | Streamed, expects: Preprocess, dtype: torch.dtype, *, images_hash: str
) -> Generator[int, None, tuple[Tensor, bool]]:
    """Features (N, D) as by `extract`, and whether they were in the cache.

    `images_hash` identifies the pixels. Where several processes need the same features, one computes them and the
    others wait, yielding -1 meanwhile. Where the cache cannot be written, features are kept for this process only.
    """
    facts = [
        VERSION,
        fingerprint(model),
        images_hash,
        list(images.shape),
        expects.model_dump(),
        str(dtype),
        images.device.type,
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    if (found := _find(cache_dir() / "features", key, len(images), images.device)) is not None:
        return found, True
    with _lock_file(key) as (folder, lock):
        while lock is not None and not _locked(lock):
            yield -1
            if key not in _extracting:  # another process computes them
                time.sleep(0.5)
        if (found := _find(folder, key, len(images), images.device)) is not None:
            return found, True
        for left in folder.glob(f".{key}.*.tmp") if lock is not None else ():  # of a process that was killed
            with contextlib.suppress(OSError):
                left.unlink()
        _extracting.add(key)
        try:
            features = yield from extract(model, images, expects, dtype)
        finally:
            _extracting.discard(key)
        temporary = folder / f".{key}.{os.getpid()}.tmp"
        values = features.cpu().numpy()
        try:
            with open(temporary, "wb") as file:
                np.save(file, values)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, folder / f"{key}-{_digest(values)}.npy")
        except OSError:  # without space on the disk nothing is cached
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    kept = _find(folder, key, len(images), images.device)  # the tensor that later trials share
    return features if kept is None else kept, False


_extracting: set[str] = set()  # keys that trials of this process compute; they take turns, so none may block


@contextlib.contextmanager
def _lock_file(key: str) -> Iterator[tuple[Path, IO[str] | None]]:
    """The folder where features can be kept, and the open lock file of these; None where it cannot be opened, for
    example because it is another user's."""
    folder, lock = cache_dir() / "features", None
    with contextlib.ExitStack() as context:
        try:
            folder = scratch_dir("features")
            lock = context.enter_context(open(folder / f"{key}.lock", "w"))
        except OSError:
            pass
        yield folder, lock


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()[:32]


# Cached files that this process has verified, by name, size, time of change and device; trials share the tensor.
_verified: dict[tuple[str, int, int, torch.device], Tensor] = {}

MAX_VERIFIED = 6  # tensors kept: of two backbones the two splits, and validation in float32


def _find(folder: Path, key: str, rows: int, device: torch.device) -> Tensor | None:
    """The cached features on `device`; None where they are missing or damaged.

    On a CPU the file is memory-mapped copy-on-write, so that it is never changed.
    """
    for path in folder.glob(f"{key}-*.npy"):
        try:
            status = path.stat()
            found = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        state = (path.name, status.st_size, status.st_mtime_ns, device)
        if state not in _verified and path.stem == f"{key}-{_digest(found)}" and found.ndim == 2 and len(found) == rows:
            while len(_verified) >= MAX_VERIFIED:
                del _verified[next(iter(_verified))]
            _verified[state] = torch.from_numpy(found).to(device)
        if state in _verified:
            return _verified[state]
    return None
