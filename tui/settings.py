"""What the user has set: settings.toml in the configuration directory. And what the dashboard remembers by itself.

    [alerts]
    bell = true                              # ring the terminal's bell; default: false
    command = "notify-send mnist-suite"      # run at every alert; default: none

The command is no shell line: it is split into words, and the event comes in environment variables (`tui.alerting`).
"""

from __future__ import annotations

import errno
import shlex
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path, user_state_path
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from suite.spec import first_error
from suite.store.files import read_bytes, write_atomic
from tui.model.view import View


class Alerts(BaseModel):
    """How alerts are told, beside the notification."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bell: bool = False
    command: str = ""

    @field_validator("command")
    @classmethod
    def _splits(cls, value: str) -> str:
        shlex.split(value)  # raises ValueError for a quote that is not closed
        return value


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alerts: Alerts = Alerts()


def settings_path() -> Path:
    """Raises OSError where no home directory is known."""
    return below_home(user_config_path) / "settings.toml"


def load_settings(path: Path) -> tuple[Settings, str | None]:
    """The user's settings, and what is wrong with the file: then the default settings hold."""
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))), None
    except FileNotFoundError:
        return Settings(), None
    except ValidationError as error:
        return Settings(), f"{path}: {first_error(error)}"
    except (OSError, ValueError) as error:
        return Settings(), f"{path}: {getattr(error, 'strerror', None) or error}"


class Remembered(BaseModel):
    """What is kept from one start to the next."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    theme: str = ""
    screen: str = ""  # a mode of the application
    view: View = View()  # without filter and study, which would hide things unasked


def state_path() -> Path:
    """Raises OSError where no home directory is known."""
    return below_home(user_state_path) / "dashboard.json"


def recall() -> Remembered:
    """What was remembered; nothing where the file is missing or damaged."""
    try:
        found = Remembered.model_validate_json(read_bytes(state_path()))
    except (OSError, ValueError, RecursionError):
        return Remembered()
    return found.model_copy(update={"view": found.view.sane()})


def remember(what: Remembered) -> None:
    """Write it, if that is possible."""
    kept = what.model_copy(update={"view": what.view.changed(filter="", study=None)})
    with suppress(OSError):
        path = state_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        # without defaults, so that those of another version hold there
        write_atomic(path, kept.model_dump_json(indent=1, exclude_defaults=True) + "\n", durable=False)


def below_home(place: Callable[[str], Path]) -> Path:
    """The suite's directory of a kind of platformdirs. Raises OSError where no home directory is known."""
    try:
        return place("mnist-suite")
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "there is no home directory (HOME, XDG_CONFIG_HOME)") from None
