"""Images that stay on the disk and are brought to the device batch by batch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from suite.data.rows import Rows

HELD_ON_CPU = 64 * 2**20  # bytes of images that each process holds in memory; more are streamed

HELD_SHARE_ON_GPU = 0.25  # proportion of the free memory of a GPU


class Streamed:
    """An array of images (N, C, H, W) uint8 in a file, indexed along its first axis like a tensor on `device`."""

    def __init__(self, rows: Rows, device: torch.device) -> None:
        self.rows, self.device = rows, device
        self.shape = torch.Size(rows.shape)
        self._expected: tuple[Tensor, Future[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Images (B, C, H, W), or one (C, H, W), on the device. Raises WorkError where the file cannot be read."""
        expected, self._expected = self._expected, None
        if expected is not None and isinstance(index, Tensor) and torch.equal(expected[0], index):
            return self._moved(expected[1].result())
        return self._moved(self._read(index.cpu().numpy() if isinstance(index, Tensor) else index))

    def expect(self, index: Tensor) -> None:
        """Begin to read these rows, which are asked for next."""
        self._expected = (index, _reader().submit(self._read, index.cpu().numpy()))

    def _read(self, index: int | slice | np.ndarray) -> Tensor:
        images = torch.from_numpy(self.rows[index])
        return images.pin_memory() if self.device.type == "cuda" else images

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True)


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "images")


def on_device(images: np.ndarray | Rows, device: torch.device) -> Tensor | Streamed:
    """Images (N, C, H, W) uint8 as a tensor on the device, or streamed from their file where they are many."""
    if isinstance(images, Rows):
        if images.nbytes > _held(device):
            return Streamed(images, device)
        images = images[:]
    return torch.from_numpy(images).to(device)


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        return int(HELD_SHARE_ON_GPU * torch.cuda.mem_get_info(device)[0])
    return HELD_ON_CPU
