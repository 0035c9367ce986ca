"""Arrays of equal rows in a file, of which only the rows that are asked for are read into memory."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path

import numpy as np

from suite.errors import WorkError


class Rows:
    """A read-only array (N, *shape) of uint8 whose rows lie anywhere in a file; it is indexed along its first axis.

    Rows are read with `pread`. Memory-mapped pages would count as memory of the process, and reading a file that
    another process has shortened would end this one.

    Args:
        path: the file: rows of `shape`, one after the other, without a header.
        shape: of one row.
        places: (N,) int64, the position in the file of each row of the array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], places: np.ndarray) -> None:
        self.path, self.places = path, places
        self.shape = (len(places), *shape)
        self.size_of_row = math.prod(shape)
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Rows as an array in memory. Raises WorkError where the file has become shorter."""
        places = self.places[index]
        found = np.empty((np.size(places), *self.shape[1:]), np.uint8)
        flat = found.reshape(len(found), self.size_of_row)
        for place, row in zip(np.atleast_1d(places).tolist(), flat, strict=True):
            self._read(place, memoryview(row.data))
        return found if np.ndim(places) else found[0]

    def _read(self, place: int, into: memoryview) -> None:
        done, start = 0, place * self.size_of_row
        while done < self.size_of_row:
            count = os.preadv(self._handle, [into[done:]], start + done)
            if count == 0:
                raise WorkError(f"{self.path} has become shorter while it was read; run the command again.")
            done += count

    def chosen(self, index: np.ndarray) -> Rows:
        """The array of these rows; nothing is read."""
        return Rows(self.path, self.shape[1:], self.places[index])

    @property
    def nbytes(self) -> int:
        return len(self) * self.size_of_row
