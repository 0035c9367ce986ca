"""Memory: how much there is, recognising that it ran out, freeing it, and how the C library allocates it."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from itertools import chain

import torch
from torch import nn

from suite.hardware.cgroup import memory_limit

OUT_OF_MEMORY = ("not enough memory", "out of memory", "cannot allocate memory", "alloc_failed", "bad_alloc")

KEPT_BYTES = 256 << 20  # of freed memory that one trial may leave to the next: as much as small models use again

SHARE = 8  # a budget is an eighth of the usable memory at most


def usable_bytes() -> int:
    """Main memory that this process may use: the machine's, or less where a cgroup limits it."""
    import psutil

    total = psutil.virtual_memory().total
    return min(total, memory_limit() or total)


def channels_last(model: nn.Module) -> nn.Module:
    """Store the 4-dimensional parameters and buffers of `model` with their channels last. Returns `model`.

    `Module.to(memory_format=...)` fails for models that have 5-dimensional ones too, as timm's lambda networks.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return model


def bounded(wanted: int) -> int:
    """A budget of `wanted` bytes, or of the `SHARE` of the usable memory where that is less."""
    return min(wanted, usable_bytes() // SHARE)


def ran_out(error: Exception) -> bool:
    """Whether `error` reports a lack of memory of the CPU or of a GPU, whichever library raised it."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY)


class _MallocState(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def make_room() -> None:
    """Free unreferenced objects, and return unused memory of the CUDA allocator to the driver, and of the C library to
    the kernel where it holds more than `KEPT_BYTES`, or than `bounded` allows."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if held_bytes() > bounded(KEPT_BYTES):
        ctypes.CDLL(None).malloc_trim(0)


def held_bytes() -> int:
    """Freed memory that the C library keeps for later allocations; 0 where it does not tell."""
    try:
        state = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    state.restype = _MallocState
    return state().fordblks


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
        library.mallopt(trim_threshold, bounded(1 << 30))
        library.mallopt(top_pad, bounded(64 << 20))
    except (OSError, AttributeError):
        pass
