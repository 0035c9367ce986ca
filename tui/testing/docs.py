"""Writes the table of keys into docs/dashboard.md: python -m tui.testing.docs docs/dashboard.md"""

from __future__ import annotations

import sys
from pathlib import Path

from textual.keys import format_key

from suite.store.files import write_atomic
from tui.keys import DIALOGUES, MEANINGS, SECTIONS, split

BEGIN, END = "<!-- keys, from tui/keys.py -->", "<!-- end of keys -->"


def keys_table() -> str:
    """The keys by section, as Markdown: the key, what it does, and its name in keys.toml."""
    lines = ["| | key | does | name |", "| --- | --- | --- | --- |"]
    for section in SECTIONS:
        here = [(name, meaning) for name, meaning in MEANINGS.items() if meaning.section == section]
        for place, (name, meaning) in enumerate(here):
            keys = " ".join(f"`{format_key(key)}`" for key in split(meaning.keys)).replace("|", "\\|")
            text = meaning.text + (" (in dialogues)" if name in DIALOGUES else "")
            lines.append(f"| {'' if place else section} | {keys} | {text} | {name} |")
    return "\n".join(lines)


def with_keys(page: str) -> str:
    """The page with the present table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{keys_table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_atomic(path, with_keys(path.read_text(encoding="utf-8")))
