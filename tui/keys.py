"""What every key does: one table, from which the bindings, the footer and the help are made.

A key has one meaning everywhere. A screen or widget lists the meanings that it has, each with the action that does it
there. A file of the user's gives a meaning other keys (`keys_path`).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_config_path
from textual.binding import Binding, BindingType

from tui.settings import below_home


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a key does, on any screen that has it."""

    keys: str  # as Textual names them, separated by commas
    text: str  # in the footer and in the help
    section: str  # of the help


SECTIONS = ("Move", "What is shown", "Trials", "Studies", "Charts", "Pad", "Program")  # of the help
MOVE, SEE, TRIALS, STUDIES, CHART, PAD, PROGRAM = SECTIONS

MEANINGS: dict[str, Meaning] = {
    # --- move ---
    "up": Meaning("up,k", "Up", MOVE),
    "down": Meaning("down,j", "Down", MOVE),
    "left": Meaning("left,h", "Left", MOVE),
    "right": Meaning("right,l", "Right", MOVE),
    "page-up": Meaning("pageup,ctrl+b,ctrl+u", "Page up", MOVE),
    "page-down": Meaning("pagedown,ctrl+f,ctrl+d", "Page down", MOVE),
    "first": Meaning("home,g", "First", MOVE),
    "last": Meaning("end,G", "Last", MOVE),
    "open": Meaning("enter", "Open", MOVE),
    "back": Meaning("escape", "Back", MOVE),
    "next-run": Meaning("J,shift+down", "Next trial", MOVE),
    "previous-run": Meaning("K,shift+up", "Previous trial", MOVE),
    "next": Meaning("right_square_bracket", "Next", MOVE),
    "previous": Meaning("left_square_bracket", "Previous", MOVE),
    # --- what is shown ---
    "filter": Meaning("slash", "Filter", SEE),
    "sort": Meaning("s", "Sort", SEE),
    "sort-before": Meaning("less_than_sign,comma", "Sort by the column before", SEE),
    "sort-behind": Meaning("greater_than_sign,full_stop", "Sort by the column behind", SEE),
    "reverse": Meaning("r", "Reverse order", SEE),
    "columns": Meaning("C", "Columns", SEE),
    "top": Meaning("t", "Top N", SEE),
    "group": Meaning("u", "Group seeds", SEE),
    "fold": Meaning("z", "Show or fold pruned and paused trials", SEE),
    "cost": Meaning("f", "Cost", SEE),
    "study": Meaning("a", "Choose study", SEE),
    "preview": Meaning("o", "Preview", SEE),
    "replay": Meaning("w", "Replay from the start", SEE),
    "views": Meaning("v", "Saved views", SEE),
    "save-view": Meaning("V", "Save this view", SEE),
    "reset": Meaning("0,delete", "Reset", SEE),
    # --- trials ---
    "mark": Meaning("space", "Mark, and on to the next", TRIALS),
    "unmark-all": Meaning("U", "Unmark all", TRIALS),
    "pin": Meaning("p", "Pin", TRIALS),
    "compare": Meaning("c", "Compare", TRIALS),
    "export": Meaning("e", "Export", TRIALS),
    "show-command": Meaning("y", "Copy the export command", TRIALS),
    "draw": Meaning("d", "Draw digits for this model", TRIALS),
    "explain": Meaning("W", "Why: explain the worst mistakes", TRIALS),
    # --- studies ---
    "launch": Meaning("n", "Launch", STUDIES),
    "clone": Meaning("N", "Clone with edits", STUDIES),
    "stop": Meaning("x", "Stop a trial or its study", STUDIES),
    "resume": Meaning("R", "Resume study", STUDIES),
    "final": Meaning("F", "Final evaluation", STUDIES),
    "jobs-log": Meaning("O", "Log of the newest job", STUDIES),
    # --- trials and studies ---
    "note": Meaning("quotation_mark", "Note and tags", TRIALS),
    "archive": Meaning("A", "Archive, or out of the archive", TRIALS),
    "delete": Meaning("D", "Delete", TRIALS),
    "undo": Meaning("ctrl+z", "Take back a note, archiving or deleting", TRIALS),
    # --- charts ---
    "axis": Meaning("X", "X axis", CHART),
    "metric": Meaning("m", "Metric", CHART),
    "smooth": Meaning("b", "Smoothing", CHART),
    "linear": Meaning("L", "Linear or log error", CHART),
    "parameter": Meaning("H", "Hyperparameter", CHART),
    "zoom-in": Meaning("plus,equals_sign", "Zoom in", CHART),
    "zoom-out": Meaning("minus", "Zoom out", CHART),
    "pan-left": Meaning("shift+left,left_parenthesis", "Pan left", CHART),
    "pan-right": Meaning("shift+right,right_parenthesis", "Pan right", CHART),
    # --- pad ---
    "model": Meaning("M", "Model", PAD),
    "sample": Meaning("i", "Image of the data set", PAD),
    "eraser": Meaning("E", "Eraser", PAD),
    # --- program ---
    "board": Meaning("1", "Board", PROGRAM),
    "plots": Meaning("2", "Plots", PROGRAM),
    "studies": Meaning("3", "Studies", PROGRAM),
    "system": Meaning("4", "System", PROGRAM),
    "pad": Meaning("5", "Pad", PROGRAM),
    "help": Meaning("question_mark,f1", "Help", PROGRAM),
    "theme": Meaning("T", "Next theme", PROGRAM),
    "screenshot": Meaning("S", "Screenshot to SVG", PROGRAM),
    "quit": Meaning("q", "Quit", PROGRAM),
    "interrupt": Meaning("ctrl+c", "Quit, or copy what is selected", PROGRAM),
    "start": Meaning("ctrl+s,f5", "Start", PROGRAM),
    "check": Meaning("ctrl+t", "Check", PROGRAM),
    "yes": Meaning("y", "Yes", PROGRAM),
    "no": Meaning("n", "No", PROGRAM),
    "only-trial": Meaning("t", "Only this trial", PROGRAM),
}
DIALOGUES = frozenset(
    {"yes", "no", "start", "only-trial"}
)  # meanings in dialogues, where a key of the screen below may mean this


Has = tuple[str, str] | tuple[str, str, str]  # a meaning, the action that does it here, and its text here


def bindings(*shown: Has, hidden: tuple[Has, ...] = (), priority: bool = False) -> list[BindingType]:
    """Bindings of a screen or widget: the `shown` ones are in the footer too, the `hidden` ones in the help only."""
    return [
        _binding(*has, show=show, priority=priority)
        for entries, show in ((shown, True), (hidden, False))
        for has in entries
    ]


def _binding(name: str, action: str, text: str = "", *, show: bool, priority: bool) -> Binding:
    meaning = MEANINGS[name]
    return Binding(meaning.keys, action, text or meaning.text, show=show, id=name, priority=priority)


def keys_path() -> Path:
    """The file that gives meanings other keys, a line each: `stop = "ctrl+x"`. Raises OSError without a home."""
    return below_home(user_config_path) / "keys.toml"


def chosen_keys(path: Path) -> tuple[dict[str, str], list[str]]:
    """The keys by meaning of a file of the user's, and what is wrong with it. Nothing is wrong if there is none."""
    try:
        lines = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [f"{path}: {getattr(error, 'strerror', None) or error}"]
    keys: dict[str, str] = {}
    wrong: list[str] = []
    for name, value in lines.items():
        if name not in MEANINGS:
            wrong.append(f"{path}: {name!r} is no meaning of a key; tui/keys.py lists them")
        elif not isinstance(value, str) or not split(value):
            wrong.append(f'{path}: {name} needs a key, as in {name} = "ctrl+x"')
        else:
            keys[name] = value
    kept = MEANINGS.keys() - keys.keys() - DIALOGUES
    taken = {key: name for name in kept for key in split(MEANINGS[name].keys)}
    for name, value in list(keys.items()):
        other = next((taken[key] for key in split(value) if key in taken), None)
        if other is None:
            taken |= dict.fromkeys(split(value), name)
        else:
            wrong.append(f"{path}: {name} = {value!r} is a key of {other}, which then needs another one")
            del keys[name]
    return keys, wrong


def split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",") if key.strip()]
