"""Running out of memory: how it is recognised, whatever raised it, and how room is made again."""

from __future__ import annotations

import gc

import torch

OUT_OF_MEMORY = ("not enough memory", "out of memory", "cannot allocate memory", "alloc_failed", "bad_alloc")


def ran_out(error: Exception) -> bool:
    """Whether it says that memory was short: Python's, the processor's or the GPU's."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def make_room() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
