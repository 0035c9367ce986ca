"""The dashboard: shows a results directory and starts commands of `mnist-suite`, which run independently of it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.events import DescendantFocus
from textual.screen import Screen
from textual.widgets import Input

from suite.errors import WorkError
from tui import ascii
from tui.alerting import Alerting, Hook
from tui.ending import by_fault, by_signal, end_with_parent, exit_code, sentence
from tui.keys import bindings, chosen_keys, keys_path
from tui.launching import Launching
from tui.messages import Polled
from tui.model.alerts import FAILURES
from tui.model.board import Board
from tui.model.detail import Detail
from tui.model.feed import INTERVAL, Feed
from tui.model.snapshot import Key, Snapshot
from tui.screens.base import LiveScreen
from tui.screens.help import HelpScreen
from tui.screens.leaderboard import LeaderboardScreen
from tui.session import Session
from tui.settings import Alerts, Remembered, load_settings, recall, remember, settings_path
from tui.themes import SERIES, THEMES
from tui.upkeep import Upkeep
from tui.widgets.options import Palette

RESUMED = ("plots", "studies", "system")  # screens that are shown again at the next start; the pad starts a process


def _screen(module: str, name: str) -> Screen:
    """A screen whose module is imported when it is first shown, so that the board is there sooner."""
    return getattr(import_module(f"tui.screens.{module}"), name)()


class Dashboard(App[None]):
    """The application. Holds the state that the screens share, as `tui.session.Session` describes it."""

    TITLE = "mnist-suite"
    CSS_PATH = Path(__file__).with_name("app.tcss")  # a relative path would be resolved beside a subclass's module
    ENABLE_COMMAND_PALETTE = True
    MODES: ClassVar[dict[str, str | Callable[[], Screen]]] = {
        "board": LeaderboardScreen,
        "plots": partial(_screen, "plots", "PlotsScreen"),
        "studies": partial(_screen, "studies", "StudiesScreen"),
        "system": partial(_screen, "system", "SystemScreen"),
        "pad": partial(_screen, "pad", "PadScreen"),
    }
    DEFAULT_MODE = "board"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (12, "-low"), (24, "-high"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("help", "help"),
        ("quit", "quit"),
        hidden=(
            ("board", "mode('board')"),
            ("plots", "mode('plots')"),
            ("studies", "mode('studies')"),
            ("system", "mode('system')"),
            ("pad", "mode('pad')"),
            ("theme", "next_theme"),
            ("screenshot", "screenshot"),
            ("interrupt", "interrupt"),
            ("undo", "undo"),
        ),
    )

    def __init__(
        self,
        results: Path,
        *,
        readonly: bool = False,
        plain: bool = False,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
        last: Remembered = Remembered(),  # noqa: B008
    ) -> None:
        self.environment = dict(os.environ)  # copied first: Textual removes NO_COLOR, which child processes need
        super().__init__()
        self.plain = plain
        if plain:
            self._filters.insert(0, ascii.Ascii())  # before colours are changed: pictures are drawn by brightness
        self.results = results
        self.readonly = readonly
        self.clock = clock
        self.snapshot = Snapshot()
        self.details: dict[Key, Detail] = {}
        self.problem: str | None = None
        self.view = last.view
        self._last = last
        self.marked: set[Key] = set()
        self.pinned: set[Key] = set()
        self.focus_key: Key | None = None
        self.board = Board()
        self.fault: Exception | None = None  # of the application itself, which has ended it
        self.feed = Feed(results, self._publish, interval=interval, clock=clock)
        self.launching = Launching(self, self.feed.wake)
        self.upkeep = Upkeep(self, results, lambda: self.snapshot, self.feed.wake)

    def _publish(self, snapshot: Snapshot, details: dict[Key, Detail], problem: str | None) -> None:
        self.post_message(Polled(snapshot, details, problem))

    def get_key_display(self, binding: Binding) -> str:
        shown = super().get_key_display(binding)
        return "enter" if self.plain and shown == "⏎" else shown  # no sign in ASCII is like it

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {"quiet": "#8a8a8a", **{f"series-{i}": colour for i, colour in enumerate(SERIES)}}

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        last = self._last
        self.theme = last.theme if last.theme in {theme.name for theme in THEMES} else THEMES[0].name
        if last.screen in RESUMED:
            self.call_later(self.switch_mode, last.screen)
        self._configure()
        self.feed.start()

    def _configure(self) -> None:
        """Take in the user's files and what was remembered. What is wrong with a file is told."""
        self.alerting = Alerting(Alerts(), None)
        try:
            keys, wrong = chosen_keys(keys_path())
            settings, problem = load_settings(settings_path())
        except OSError:  # no home directory is known
            return
        self.set_keymap(keys)
        for text in [*wrong, *([problem] if problem else [])]:
            self.notify(text, title="Settings", severity="warning", timeout=15, markup=False)
        hook = None if self.readonly else Hook(settings.alerts.command, self.results, self.environment)
        self.alerting = Alerting(settings.alerts, hook)

    def on_unmount(self) -> None:
        self.feed.stop()

    def _fatal_error(self) -> None:
        """Close the application after an exception. Textual's method prints the traceback on the terminal."""
        self.fault = self._exception
        self._close_messages_no_wait()

    # --- news from the feed ---

    def follow(self, keys: Iterable[Key]) -> None:
        self.feed.follow(keys)

    def on_polled(self, message: Polled) -> None:
        self.problem = message.problem
        if message.problem is None:  # otherwise the last known state stays
            self.snapshot, self.details = message.snapshot, message.details
            self._tell_news(message.snapshot)
        self.launching.report_ended()
        self.refresh_screen()

    def _tell_news(self, snapshot: Snapshot) -> None:
        found = self.alerting.news(snapshot)
        for alert in found:
            severity = "error" if alert.kind in FAILURES else "information"
            self.notify(alert.text, title=alert.kind.replace("-", " "), severity=severity, timeout=15, markup=False)
        if found and self.alerting.bell:
            self.bell()
        if problem := self.alerting.tend():
            self.notify(problem, title="Command of the alerts", severity="warning", timeout=15, markup=False)

    def refresh_screen(self) -> None:
        """Update the topmost live screen; a dialogue may lie above it."""
        for screen in reversed(self.screen_stack):
            if isinstance(screen, LiveScreen):
                if screen.is_mounted:
                    with contextlib.suppress(NoMatches):  # while it opens or closes, some of its widgets are missing
                        screen.update(self.snapshot, self.details)
                return

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """A cursor that blinks would be paid for by those who sit at the end of a slow line."""
        if isinstance(event.widget, Input):
            event.widget.cursor_blink = False

    # --- actions of keys ---

    def action_mode(self, mode: str) -> None:
        if len(self.screen_stack) > 1:
            if not isinstance(self.screen, LiveScreen):
                return  # an open dialogue has to be answered first
            self.pop_screen()
        self.switch_mode(mode)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_next_theme(self) -> None:
        names = [theme.name for theme in THEMES]
        after = names.index(self.theme) + 1 if self.theme in names else 0
        self.theme = names[after % len(names)]
        self.notify(f"Theme: {self.theme}")

    def action_undo(self) -> None:
        self.upkeep.undo()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (self.readonly and action == "undo")

    async def action_interrupt(self) -> None:
        """Quit, unless a field has the focus: there this key copies what is selected, else all of the field."""
        if isinstance(self.focused, Input):
            self.copy_to_clipboard(self.focused.value)
            self.notify("Copied." if self.focused.value else "Escape leaves the field; then q quits.")
        elif isinstance(self.screen, LiveScreen):  # an open dialogue has to be answered first
            await self.action_quit()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        name = filename or time.strftime("mnist-suite-%Y%m%d-%H%M%S.svg")
        try:
            self.deliver_screenshot(name, path)
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory is known
            reason = getattr(error, "strerror", None) or error
            self.notify(f"No screenshot: {reason}", severity="error", markup=False)

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """Every binding of the visible screen, and of Textual's own commands those without a binding here."""
        seen: set[str] = set()
        for node, binding, enabled, _ in screen.active_bindings.values():
            if not enabled or binding.system or not binding.description or binding.description in seen:
                continue
            seen.add(binding.description)
            key = self.get_key_display(binding)

            def run(node=node, action: str = binding.action) -> None:
                self.call_later(self.run_action, action, node)

            yield SystemCommand(binding.description, f"key {key}", run)
        for command in super().get_system_commands(screen):
            if command.title in ("Theme", "Keys", "Maximize", "Minimize"):
                yield command


if TYPE_CHECKING:

    def _session(app: Dashboard) -> Session:  # an error here: the application lacks what the screens use
        return app


def run(results: Path, readonly: bool, plain: bool | None = None) -> int:
    """Show the dashboard until the user quits or a signal ends it; returns the exit code.

    Raises WorkError where a fault of its own ends it.

    `readonly` disables every action that writes or starts something. `plain` draws in ASCII; None: where the terminal
    cannot show more.
    """
    collect_less_often()
    if os.environ.get("TEXTUAL_DRIVER"):  # a tab of `tui.web`
        end_with_parent()
    plain = ascii.needed(os.environ) if plain is None else plain
    app = Dashboard(results, readonly=readonly, plain=plain, last=recall())
    with by_signal(app.exit) as received:
        app.run()
    if not readonly:
        remember(Remembered(theme=app.theme, screen=app.current_mode, view=app.view))
    if app.fault is not None:
        raise WorkError(by_fault(app.fault))
    if received:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"mnist-suite: {sentence(received[0])}\n")
        return exit_code(received[0])
    return app.return_code or 0


def collect_less_often() -> None:
    """Raise the thresholds of the cycle collector: with 10,000 runs in memory, a collection takes tens of ms."""
    gc.set_threshold(50_000, 20, 50)
