"""Figures in other documents: Markdown links whose titles say which figure they quote.

    [99.67 % (99.63 to 99.71)](results/accuracy.md#long "accuracy: long, test")
    [3.1 times](results/accuracy.md#long "accuracy: long / middle, seconds of training")

The text and the address of such a link are made from the title and the CSV of the page that it names. A title with
"A / B" is the ratio of the two values, as "3.1 times", or as a percentage where the first is smaller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from suite.errors import InputError
from suite.gallery.figures import Figures
from suite.gallery.page import anchor

QUOTE = re.compile(
    r'\[(?P<text>[^\[\]]*)\]\((?P<link>[^()\s]*)\s"(?P<page>[\w.-]+): (?P<about>[^"]+), (?P<name>[^",]+)"\)'
)


def requoted(text: str, document: Path, folder: Path, pages: Mapping[str, Figures]) -> str:
    """`text` of a document with its quotes made anew from `pages`, the CSVs in `folder`.

    Raises InputError where a quote names no figure.
    """
    base = os.path.relpath(folder, document.parent)

    def anew(match: re.Match[str]) -> str:
        page, about, name = match["page"], match["about"], match["name"]
        try:
            shown = _shown(pages, page, about, name)
        except LookupError as error:
            line = text.count("\n", 0, match.start()) + 1
            raise InputError(
                f'{document}, line {line}, quotes "{page}: {about}, {name}", but {error.args[0]}.'
            ) from None
        place, _, _ = about.partition(" / ")
        return f'[{shown}]({os.path.join(base, page)}.md#{anchor(place, name)} "{page}: {about}, {name}")'

    return QUOTE.sub(anew, text)


def _shown(pages: Mapping[str, Figures], page: str, about: str, name: str) -> str:
    """The text of a quote. Raises LookupError with the reason where there is no such figure."""
    if page not in pages:
        raise LookupError(f"there is no page {page}; there are: {', '.join(pages) or 'none'}")
    first, ratio, second = about.partition(" / ")
    values = []
    for part in (first, second) if ratio else (first,):
        figure = pages[page].get(part, name)
        if figure.value is None and not figure.text:
            known = pages[page].about(name)
            raise LookupError(
                f"{page} has no such figure; '{name}' there is about: {', '.join(known)}"
                if known
                else f"{page} has no '{name}' at all"
            )
        values.append(figure)
    if not ratio:
        return str(values[0])
    top, bottom = (figure.value for figure in values)
    if not top or not bottom:
        raise LookupError("a ratio needs two numbers other than zero")
    share = top / bottom
    return f"{share:.2g} times" if share >= 1 else f"{100 * share:.2g} %"
