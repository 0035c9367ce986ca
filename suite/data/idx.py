"""The idx file format of MNIST: https://yann.lecun.com/exdb/mnist/.

A file is a big-endian header (two zero bytes, the type code 8 for unsigned bytes, the number of dimensions, then each
dimension as a 32-bit integer) followed by the values.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from suite.errors import WorkError


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array of up to four dimensions as unsigned bytes."""
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, dtype=">i4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def parse_idx(path: Path) -> np.ndarray:
    """The uint8 array in an idx file. Raises WorkError where the file is incomplete or in another format."""
    data = np.fromfile(path, np.uint8)
    dimensions = int(data[3]) if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3].tobytes() != b"\0\0\x08" or not 1 <= dimensions <= 4 or len(data) < start:
        raise WorkError(f"{path.name} is no idx file of bytes")
    shape = [int(n) for n in np.frombuffer(data[4:start].tobytes(), ">i4")]
    if min(shape) < 0 or len(data) - start != math.prod(shape):
        raise WorkError(f"{path.name} has {len(data):,} bytes, which is not what its header says")
    return data[start:].reshape(shape)
