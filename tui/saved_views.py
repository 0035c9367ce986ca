"""Saved views of the leaderboard: one small JSON file in the user's configuration directory."""

from __future__ import annotations

import json
from pathlib import Path

from platformdirs import user_config_path
from pydantic import ValidationError

from suite.store.files import write_atomic
from tui.model.view import View
from tui.settings import below_home


def views_path() -> Path:
    """Raises OSError where no home directory is known."""
    return below_home(user_config_path) / "views.json"


def load_views(path: Path | None = None) -> dict[str, View]:
    """All saved views by name; damaged ones are left out."""
    try:
        data = json.loads((path or views_path()).read_bytes())
        items = data.items()
    except (OSError, ValueError, AttributeError):
        return {}
    views: dict[str, View] = {}
    for name, value in items:
        try:
            views[str(name)] = View.model_validate(value).sane()
        except ValidationError:
            continue
    return views


def save_view(name: str, view: View, path: Path | None = None) -> None:
    """Add or replace a view. Raises OSError."""
    path = path or views_path()
    views = load_views(path) | {name: view}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({key: one.model_dump(mode="json") for key, one in views.items()}, indent=1) + "\n")
