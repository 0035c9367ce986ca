"""Exported models.

`suite.export.load(folder)` loads one. The cards of exported models quote this line, so its name must not change.
"""

from suite.export.predict import load

__all__ = ["load"]
