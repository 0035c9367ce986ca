"""The dashboard in ASCII: every cell of every screen, at its place, and where it is chosen by itself."""

from __future__ import annotations

import asyncio
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.ascii import ascii_text, needed
from tui.testing.bench import ManualDashboard

WAY = (
    "",
    "question_mark",
    "escape 2",
    "right_square_bracket",
    "3",
    "4",
    "5",
    "1 space space c",
    "escape enter",
    "right_square_bracket",
    "l l",
    "escape n",
)


def test_every_cell_of_every_screen_is_ascii(results, screen_text) -> None:
    seen = set()

    async def main() -> None:
        app = ManualDashboard(results, plain=True)
        app.animation_level = "none"
        async with app.run_test(size=(180, 40)) as pilot:
            app.poll()
            app.notify("Done …")
            for keys in WAY:
                await pilot.press(*keys.split())
                app.poll()
                await pilot.pause()
                shown = screen_text(app)
                assert shown.isascii(), {char for char in shown if not char.isascii()}
                seen.add(shown)

    asyncio.run(main())
    assert len(seen) == len(WAY)


@given(st.text(max_size=30))
def test_any_text_keeps_its_width(text: str) -> None:
    text = "".join(char for char in text if unicodedata.category(char)[0] != "C")
    assert ascii_text(text).isascii() and len(ascii_text(text)) == cell_len(text)


@pytest.mark.parametrize(
    ("glyphs", "shown"),
    [
        ("✓ finished  ✂ 42 pruned", "v finished  x 42 pruned"),
        ("███▌░░", "###=.."),
        ("⡠⠔⠒⠒⠢⡀⡇", "//--\\.|"),
        ("99.2% ± 0.1 · café 日", "99.2% ~ 0.1 | cafe ??"),
    ],
)
def test_glyphs(glyphs: str, shown: str) -> None:
    assert ascii_text(glyphs) == shown


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, False),
        ({"TERM": "xterm"}, False),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, True),
        ({"TERM": "xterm", "LANG": "C"}, True),
        ({"TERM": "xterm", "LANG": "de_DE"}, True),
        ({"TERM": "xterm", "LANG": "de_DE.ISO-8859-15@euro"}, True),
        ({"TERM": "xterm", "LC_ALL": "POSIX", "LANG": "en_US.utf8"}, True),
        ({"TERM": "xterm", "LC_ALL": "", "LC_CTYPE": "de_DE.utf8", "LANG": "C"}, False),
    ],
)
def test_ascii_is_chosen_where_the_terminal_lacks_the_glyphs(environment: dict[str, str], expected: bool) -> None:
    assert needed(environment) is expected
