"""Exported models.

`suite.export.load(folder)` loads one, and `suite.export.Predictor(folder)` predicts from picture files with it. The
cards of exported models quote both, so their names must not change.
"""

from suite.export.predict import Predictor, load

__all__ = ["Predictor", "load"]
