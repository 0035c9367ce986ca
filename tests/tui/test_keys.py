"""The table of keys: one meaning a key, on every screen, and a file of the user's that gives others."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.dom import DOMNode

import tui
from tui.keys import DIALOGUES, MEANINGS, SECTIONS, chosen_keys, split


def nodes() -> list[type[DOMNode]]:
    """All screens, widgets and applications of the package that declare keys."""
    found = []
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, DOMNode) and value.__module__ == module.name:
                found += [value] if "BINDINGS" in vars(value) else []
    return found


def test_a_key_has_one_meaning() -> None:
    keys = Counter(key for name, m in MEANINGS.items() if name not in DIALOGUES for key in split(m.keys))
    assert not [key for key, count in keys.items() if count > 1]
    assert {meaning.section for meaning in MEANINGS.values()} == set(SECTIONS)


@pytest.mark.parametrize("node", nodes(), ids=lambda node: node.__name__)
def test_every_key_comes_from_the_table(node: type[DOMNode]) -> None:
    plain = {"up", "down", "pageup", "pagedown", "f1"}  # beside a field to type into, where letters cannot move
    for binding in Binding.make_bindings(node.BINDINGS):
        if binding.id is None:
            assert binding.key in plain
        else:
            keys = {one.key for one in Binding.make_bindings([(MEANINGS[binding.id].keys, "x", "")])}
            assert binding.key in keys
        action = f"action_{binding.action.partition('(')[0].removeprefix('app.')}"
        assert hasattr(node, action) or hasattr(tui.app.Dashboard, action), action


def test_a_file_of_the_users_gives_other_keys(tmp_path: Path, results, drive) -> None:
    file = tmp_path / "keys.toml"
    assert chosen_keys(file) == ({}, [])
    file.write_text('stop = "ctrl+x"\nmark = "m"\nmetric = "M"\nmodel = "ctrl+o"\n')
    assert chosen_keys(file) == ({"stop": "ctrl+x", "mark": "m", "metric": "M", "model": "ctrl+o"}, [])

    async def script(app, pilot) -> None:
        app.set_keymap(chosen_keys(file)[0])
        await pilot.press("space")
        assert not app.marked
        await pilot.press("m")
        assert len(app.marked) == 1

    drive(results, script)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("stop = [", "Invalid"),
        ('jump = "j"', "jump"),
        ("stop = 3", "needs a key"),
        ('stop = " "', "needs a key"),
        ('stop = "e"', "a key of export"),
        ('stop = "ctrl+x"\nexport = "ctrl+x"', "a key of stop"),
    ],
)
def test_a_wrong_line_is_named_and_the_others_hold(tmp_path: Path, text: str, wrong: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    keys, found = chosen_keys(file)
    assert len(found) == 1 and wrong in found[0] and str(file) in found[0]
    assert set(keys) <= {"stop"} and "e" not in keys.values()
