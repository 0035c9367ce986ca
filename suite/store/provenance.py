"""Versions and commit of the code that makes a record."""

from __future__ import annotations

import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path


@cache
def version() -> str:
    """The version of this package; 'unknown' where it is not installed."""
    try:
        return importlib.metadata.version("mnist-suite")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def packages() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    names = ("torch", "torchvision", "timm", "optuna", "numpy", "safetensors", "scikit-learn")
    return {name: importlib.metadata.version(name) for name in names}


@cache
def commit() -> str | None:
    """The git commit of the code, with a '+' where the tree differs from it; None outside a checkout."""
    try:
        describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(describe, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
