"""Text in Markdown: escaped, so that it is shown as written and forms no tag, link, heading or table cell."""

from __future__ import annotations

import re

from markupsafe import Markup

from suite.errors import printable

# Characters that begin an inline construct (emphasis, code, links, tags, entities, formulas) or end a table's cell.
_SPECIAL = re.compile(r"[\\`*_\[\]<>#&|~$]")

# What begins a list, and lines of dashes or equals signs; other blocks begin with a special character.
_BLOCK = re.compile(r"^(\d*)([-+.)](?=\s|$)|[-=](?=[-=\s]*$))")

# Where plain addresses become links on GitHub: https://github.github.com/gfm/#autolinks-extension-
_ADDRESS = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)


def escape(text: object) -> str:
    """`text` on one line, for any place in a Markdown document. `Markup`, which is Markdown already, stays as it is.

    A backslash makes the punctuation after it literal: https://spec.commonmark.org/0.31.2/#backslash-escapes
    """
    if isinstance(text, Markup):
        return text
    line = printable(" ".join(str(text).split()))
    line = _SPECIAL.sub(r"\\\g<0>", line)
    line = _BLOCK.sub(r"\1\\\2", line)
    return _ADDRESS.sub(r"\\\g<0>", line)
