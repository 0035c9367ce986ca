"""Fonts for names in any script. Matplotlib's own font has no Chinese, Japanese or Korean characters and no emoji."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"  # comes with matplotlib


def families(text: str) -> tuple[str, ...] | None:
    """Font families that together have every character of `text`, to be tried in this order.

    Matplotlib's own is the first; installed fonts follow where it is not enough. None if they are not enough either.
    """
    wanted = frozenset(c for c in text if not c.isspace() and unicodedata.category(c)[0] != "C")
    return _families(wanted)


@lru_cache(maxsize=256)
def _families(wanted: frozenset[str]) -> tuple[str, ...] | None:
    missing = wanted - _covered(font_manager.findfont(OWN), wanted)
    chosen = [OWN]
    covered = {path: _covered(path, missing) for path in installed()} if missing else {}
    while missing:
        path = max(covered, key=lambda path: (len(covered[path] & missing), _plainness(path)), default="")
        if not path or not covered[path] & missing:
            return None
        missing -= covered.pop(path)
        chosen.append(_known(path))
    return tuple(chosen)


def installed() -> list[str]:
    """The font files of this machine, those included that were installed after matplotlib made its list."""
    return sorted({*font_manager.findSystemFonts(), *(entry.fname for entry in font_manager.fontManager.ttflist)})


def _covered(path: str, wanted: frozenset[str]) -> frozenset[str]:
    """Which of these characters a font has.

    Fonts that matplotlib cannot draw, such as bitmaps, have none, and so has a "Last Resort" font, of which one comes
    with matplotlib: it has a box for every character.
    """
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError, ValueError):
        return frozenset()
    if font.family_name.lower().replace(" ", "").startswith((".lastresort", "lastresort")):
        return frozenset()
    return frozenset(c for c in wanted if font.get_char_index(ord(c)))


def _plainness(path: str) -> tuple[bool, bool, bool]:
    """Of fonts that have as much, an upright, regular one without serifs is preferred."""
    name = os.path.basename(path).lower()
    return (
        not any(word in name for word in ("italic", "oblique")),
        not any(word in name for word in ("bold", "black", "light", "thin", "medium")),
        not any(word in name for word in ("serif", "mono")),
    )


def _known(path: str) -> str:
    """The family name of a font file, under which matplotlib finds it."""
    manager = font_manager.fontManager
    if not any(entry.fname == path for entry in manager.ttflist):
        manager.addfont(path)
    return next(entry.name for entry in manager.ttflist if entry.fname == path)
