"""Exported models: `suite.export.load(folder)` gives the model back."""

from suite.export.predict import load

__all__ = ["load"]
