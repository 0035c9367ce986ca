"""Importing timm without the compiler of torch.compile, which takes longer to import than timm itself.

The suite does not compile models. timm and torchvision.ops import `torch._dynamo` for two things that matter to
compiled models only: the decorator `torch.compiler.disable`, and functions of `torch._dynamo.utils`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"

UTILS = f"{COMPILER}.utils"


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


def import_timm() -> Any:
    """The module timm."""
    if "timm" in sys.modules or COMPILER in sys.modules:
        return importlib.import_module("timm")
    disable = torch.compiler.disable
    sys.modules[UTILS] = _Later(UTILS)
    torch.compiler.disable = _not_disabled
    try:
        return importlib.import_module("timm")
    finally:
        torch.compiler.disable = disable
        if isinstance(sys.modules.get(UTILS), _Later):
            del sys.modules[UTILS]
