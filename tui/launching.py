"""Commands of `mnist-suite`: the dialogues before they start, and what is said when they have ended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from textual.app import App

from suite.store.files import scratch_dir
from suite.store.study import StudyDir
from tui.model.board import ACTIVE
from tui.model.jobs import Task
from tui.model.snapshot import Key
from tui.screens.base import LiveScreen
from tui.screens.confirm import ConfirmScreen, PromptScreen, StopScreen
from tui.session import Session
from tui.work import commands
from tui.work.children import Children


class Launching:
    """Starts and stops commands, each after a dialogue. They run independently of the dashboard.

    Args:
        app: Shows the dialogues and messages, and holds the state that `Session` describes.
        wake: Makes the feed read at once.
    """

    def __init__(self, app: App[None], wake: Callable[[], object]) -> None:
        self._app, self._session, self._wake = app, cast("Session", app), wake
        self.children = Children()

    def report_ended(self) -> None:
        """Say how commands have ended. A failure at the start shows its log at once."""
        for child in self.children.ended():
            task = child.task
            view = self._session.snapshot.study(task.study)
            if task.ending == "done" and view is not None and view.state == "done":
                continue  # an alert tells it
            if task.ending == "done":
                self._app.notify(child.done, title=task.name, timeout=10, markup=False)
            elif task.ending == "stopped":
                self._app.notify("Stopped." + (" R resumes it." if task.study else ""), title=task.name, markup=False)
            elif child.young and isinstance(self._app.screen, LiveScreen) and len(self._app.screen_stack) == 1:
                self._show_log(task.name, task.log)
            else:
                text = f"failed: {task.said}\nO shows its log."
                self._app.notify(text, title=task.name, severity="error", timeout=15, markup=False)

    @property
    def tasks(self) -> list[Task]:
        return self.children.tasks

    def start(self, words: list[str], log: Path, begun: str, done: str, study: str = "", trials: int = 0) -> bool:
        task = Task(study or " ".join(words[:2]), log, study, trials, self._session.clock())
        try:
            self.children.start(words, task, done, self._session.environment)
        except (OSError, ValueError) as error:  # ValueError: a word has a null character
            said = getattr(error, "strerror", None) or error
            self._app.notify(f"Not started: {said}", severity="error", timeout=10, markup=False)
            return False
        self._app.notify(begun, markup=False)
        self._session.refresh_screen()
        self._wake()
        return True

    def open_log(self, study: str | None = None) -> None:
        task = self.children.newest(study)
        if task is not None:
            self._show_log(task.name, task.log)
            return
        study = study or (self._session.focus_key[0] if self._session.focus_key else None)
        log = StudyDir(self._session.results, study).path / "console.log" if study else None
        if study and log and log.exists():
            self._show_log(study, log)
        else:
            self._app.notify(f"No log{f' of {study}' if study else ''}: no command was started from a dashboard.")

    def _show_log(self, name: str, log: Path) -> None:
        self.children.seen(log)
        from tui.screens.log import LogScreen

        self._app.push_screen(LogScreen(name, log))

    def ask_launch(self, study: str | None) -> None:
        from tui.screens.launch import LaunchScreen  # imported when it is first shown, as the main screens are
        from tui.work.form import new_form

        self._app.push_screen(LaunchScreen(new_form(self._session.results, self._session.snapshot.studies, study)))

    def ask_final(self, study: str) -> None:
        view = self._session.snapshot.study(study)
        if view is not None and view.state in ("running", "stopping"):
            self._app.notify(f"{study} is at work; test images are read when the search is over.", markup=False)
            return
        words = commands.final_words(study, self._session.results)

        def answer(yes: bool | None) -> None:
            if yes:
                log = scratch_dir("logs") / f"evaluate-{study}.log"
                self.start(words, log, f"Final evaluation of {study} started.", f"{study} is evaluated.")

        text = (
            "The best 3 of each arm are trained with 5 new seeds each; then the test images are read. "
            "The launch form sets other numbers."
        )
        self._app.push_screen(ConfirmScreen(f"Final evaluation of {study}?", text, commands.typed(words)), answer)

    def ask_export(self, key: Key) -> None:
        study, trial = key
        run = self._session.snapshot.find(key)
        if run is None or run.record is None or run.record.artifact is None:
            self._app.notify("Only a finished trial has a model to export.", severity="warning")
            return

        def words(to: str) -> list[str]:
            return commands.export_words(study, trial, commands.new_folder(to), self._session.results)

        def answer(to: str | None) -> None:
            if to:
                log = scratch_dir("logs") / f"export-{study}-{trial}.log"
                log.unlink(missing_ok=True)
                self.start(words(to), log, f"Exporting to {to} …", f"Exported to {to}.")

        default = str(Path("exports") / f"{study}-{run.row.number:04d}")
        check = partial(commands.refusal, commands.new_folder)
        preview = lambda to: f"$ {commands.typed(words(to))}"  # noqa: E731
        self._app.push_screen(PromptScreen(f"Export {study}/{trial} to", default, check=check, preview=preview), answer)

    def ask_explain(self, key: Key) -> None:
        study, trial = key
        run = self._session.snapshot.find(key)
        if run is None or run.record is None or run.record.artifact is None:
            self._app.notify("Only a finished trial has answers to explain.", severity="warning")
            return
        words = commands.explain_words(study, trial, self._session.results)

        def answer(yes: bool | None) -> None:
            if yes:
                log = scratch_dir("logs") / f"explain-{study}-{trial}.log"
                log.unlink(missing_ok=True)
                self.start(words, log, f"Explaining {study}/{trial} …", f"{study}/{trial} is explained.")

        text = (
            "Maps of its most confident mistakes on validation, and the nearest training images. The features of all "
            "training images are computed once, which takes a while with a large network."
        )
        self._app.push_screen(ConfirmScreen(f"Explain {study}/{trial}?", text, commands.typed(words)), answer)

    def ask_stop(self, study: str, trial: str | None = None) -> None:
        view = self._session.snapshot.study(study)
        if view is None or view.state not in ("running", "stale", "stopping"):
            self._app.notify(f"Study {study} is not running.", markup=False)
            return

        run = self._session.snapshot.find((study, trial)) if trial is not None else None
        trial = trial if run is not None and run.row.state in (*ACTIVE, "paused") else None
        directory = StudyDir(self._session.results, study)

        def answer(what: str | None) -> None:
            if what is None:
                return
            reason = "asked for in the dashboard"
            try:
                if what == "trial" and trial is not None:
                    directory.trial(trial).request_stop(reason)
                    said = f"Trial {trial} ends at its next evaluation."
                else:
                    directory.request_stop(reason)
                    said = f"Stop requested: {study} ends after its next checkpoints."
            except OSError as error:
                self._app.notify(f"Not stopped: {error.strerror or error}", severity="error", timeout=10, markup=False)
                return
            self._app.notify(said, markup=False)
            self._wake()

        words = commands.stop_words(study, self._session.results)
        self._app.push_screen(StopScreen(study, trial, commands.typed(words)), answer)

    def ask_resume(self, study: str) -> None:
        view = self._session.snapshot.study(study)
        if view is None or view.file is None:
            self._app.notify(f"Study {study} cannot be read.", severity="error", markup=False)
            return
        if view.state in ("running", "stopping") and view.status is not None:
            self._app.notify(f"{study} is at work: pid {view.status.pid} on {view.status.host}.", markup=False)
            return
        words = commands.resume_words(study, view.status.workers if view.status else 1, self._session.results)
        log = StudyDir(self._session.results, study).path / "console.log"

        def answer(yes: bool | None) -> None:
            if yes:
                self.start(words, log, f"Resuming {study}.", f"{study} is over.", study, view.planned)

        text = "Unfinished trials go on from their last checkpoint; what is finished stays."
        self._app.push_screen(ConfirmScreen(f"Resume study {study}?", text, commands.typed(words)), answer)
