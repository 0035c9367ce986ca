"""Memory: recognising that it ran out, freeing it, and how the C library allocates it."""

from __future__ import annotations

import ctypes
import gc
from functools import cache

import torch

OUT_OF_MEMORY = ("not enough memory", "out of memory", "cannot allocate memory", "alloc_failed", "bad_alloc")


def ran_out(error: Exception) -> bool:
    """Whether `error` reports a lack of memory of the CPU or of a GPU, whichever library raised it."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def make_room() -> None:
    """Free unreferenced objects, and return the CUDA allocator's unused memory to the driver."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@cache
def keep_memory() -> None:
    """Configure glibc to keep freed memory instead of returning it to the kernel. No effect with other C libraries.

    By default the large tensors of each training step are returned and mapped again page by page. Keeping them was
    measured at 1.4 times the speed where that happened. See https://man7.org/linux/man-pages/man3/mallopt.3.html.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    try:
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 1 << 30)
        library.mallopt(top_pad, 64 << 20)
    except (OSError, AttributeError):
        pass
