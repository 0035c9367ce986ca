"""Exported models.

`suite.export.load(folder)` loads one, and `suite.export.Predictor(folder)` predicts from picture files with it. The
cards of exported models quote both, so their names must not change.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suite.export.loading import load
    from suite.export.predict import Predictor

__all__ = ["Predictor", "load"]


def __getattr__(name: str) -> Any:
    """Import them when they are first asked for: `load` needs PyTorch, and a Predictor does not always."""
    if name == "load":
        from suite.export.loading import load

        return load
    if name == "Predictor":
        from suite.export.predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
