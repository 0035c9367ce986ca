"""Importing timm, and torchvision with it, without the compiler of torch.compile, which takes longer than both.

The suite does not compile models. timm and torchvision import `torch._dynamo` for two things that matter to compiled
models only: the decorator `torch.compiler.disable`, and functions of `torch._dynamo.utils`.
"""

from __future__ import annotations

import importlib
import sys
from threading import Lock
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"

UTILS = f"{COMPILER}.utils"

_lock = Lock()


class _Later(ModuleType):
    """Stands for `torch._dynamo.utils`: its functions are imported when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if COMPILER in sys.modules:
            return getattr(_utils(), name)
        return lambda *args, **kwargs: getattr(_utils(), name)(*args, **kwargs)


def _utils() -> ModuleType:
    if isinstance(sys.modules.get(UTILS), _Later):
        del sys.modules[UTILS]
    return importlib.import_module(UTILS)


def _not_disabled(function: Any = None, *_: Any, **__: Any) -> Any:
    """In place of `torch.compiler.disable`, as a decorator with or without arguments."""
    return function if callable(function) else lambda decorated: decorated


def light_import(name: str) -> Any:
    """The module timm, or another that imports torchvision."""
    with _lock:
        if name in sys.modules or COMPILER in sys.modules:
            return importlib.import_module(name)
        disable = torch.compiler.disable
        sys.modules[UTILS] = _Later(UTILS)
        torch.compiler.disable = _not_disabled
        try:
            return importlib.import_module(name)
        finally:
            torch.compiler.disable = disable
            if isinstance(sys.modules.get(UTILS), _Later):
                del sys.modules[UTILS]
