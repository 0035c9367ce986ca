"""Notes, archive and trash: the dialogues, the changes on disk, and taking them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual.app import App

from suite.errors import InputError
from suite.store.notes import STUDY, Note, read_notes, replace_note, write_note
from suite.store.study import StudyDir
from suite.store.trash import TRASH, Discarded, discard, restore
from tui.draw.facts import parent_key
from tui.model.snapshot import Key, Snapshot
from tui.screens.confirm import ConfirmScreen
from tui.screens.note import NoteScreen
from tui.work import commands

MOST_STEPS = 50  # that can be taken back


@dataclass(frozen=True)
class Step:
    """A change that can be taken back."""

    text: str  # what it did, for people
    back: Callable[[], object]  # raises InputError and OSError


class Upkeep:
    """Changes what surrounds trials, never what they measured. A trial is named by its id, a study itself by `STUDY`.

    Args:
        app: Shows the dialogues and messages.
        snapshot: The present state.
        wake: Makes the feed read at once.
    """

    def __init__(
        self, app: App[None], results: Path, snapshot: Callable[[], Snapshot], wake: Callable[[], object]
    ) -> None:
        self._app, self._results, self._snapshot, self._wake = app, results, snapshot, wake
        self._steps: list[Step] = []

    # --- notes and archive ---

    def ask_note(self, study: str, trial: str = STUDY) -> None:
        directory = self._study(study)
        before = read_notes(directory).get(trial, Note())
        about = f"{study}/{trial}" if trial else study

        def answer(after: Note | None) -> None:
            if after is not None and after != before:
                change = partial(replace_note, directory, trial, before, after)
                back = partial(replace_note, directory, trial, after, before)
                self._do(change, Step(f"the note of {about}", back), f"Noted for {about}.")

        self._app.push_screen(NoteScreen(about, before), answer)

    def archive(self, study: str, trials: Sequence[str] = (STUDY,)) -> None:
        """Put trials or a study out of sight, or back where all of them are out of sight already."""
        directory = self._study(study)
        notes = read_notes(directory)
        hide = not all(notes.get(trial, Note()).archived for trial in trials)

        def write(archived: bool) -> None:
            for trial in trials:
                write_note(directory, trial, archived=archived)

        about = study if STUDY in trials else f"{study}/{trials[0]}" if len(trials) == 1 else f"{len(trials)} trials"
        told = f"{about} is archived: the filter is:archived shows it." if hide else f"{about} is no longer archived."
        step = Step(f"{'archiving' if hide else 'taking out of the archive'} {about}", partial(write, not hide))
        self._do(partial(write, hide), step, told)

    # --- trash ---

    def ask_delete(self, study: str, trial: str | None = None) -> None:
        """Move a study or trial to the trash after a confirmation."""
        app, snapshot, about = self._app, self._snapshot(), f"{study}/{trial}" if trial else study
        view = snapshot.study(study)
        if view is None:
            return
        if view.state in ("running", "stopping"):
            app.notify(f"{study} is at work: stop it first (x).", severity="warning", markup=False)
            return
        keys: list[Key] = [(study, trial)] if trial else [run.key for run in view.runs]
        users = weights_taken(keys, snapshot)
        text = f"It moves to {self._results / TRASH}; ctrl+z restores it, and so does moving it back by hand."
        if not trial:
            text += f" With it go {len(view.runs)} trials."
        if users:
            who = "1 trial elsewhere uses" if users == 1 else f"{users} trials elsewhere use"
            text += f" {who} its weights and may need them to be exported or trained again."

        def answer(yes: bool | None) -> None:
            if yes:
                app.run_worker(partial(self._discard, study, trial, about), thread=True, exit_on_error=False)

        words = commands.typed(["trash", about, "--results", str(self._results)])
        app.push_screen(ConfirmScreen(f"Delete {about}?", text, words), answer)

    def _discard(self, study: str, trial: str | None, about: str) -> None:
        """In a thread: it may take seconds to see whether a controller on another host is at work."""
        try:
            found = discard(self._results, study, trial)
        except (InputError, OSError) as error:
            self._app.call_later(self._refused, error)
        else:
            self._app.call_later(self._discarded, found, about)

    def _discarded(self, found: Discarded, about: str) -> None:
        self._done(Step(f"deleting {about}", partial(restore, found)), f"{about} is in {found.kept}.")

    # --- taking back ---

    def undo(self) -> None:
        if not self._steps:
            self._app.notify("Nothing to take back: notes, archiving and deleting can be.")
            return
        step = self._steps.pop()
        try:
            step.back()
        except (InputError, OSError) as error:
            self._refused(error)
        else:
            self._app.notify(f"Taken back: {step.text}.", markup=False)
            self._wake()

    def _do(self, change: Callable[[], object], step: Step, told: str) -> None:
        try:
            change()
        except (InputError, OSError) as error:
            self._refused(error)
        else:
            self._done(step, told)

    def _done(self, step: Step, told: str) -> None:
        self._steps = [*self._steps, step][-MOST_STEPS:]
        self._app.notify(f"{told} ctrl+z takes it back.", timeout=8, markup=False)
        self._wake()

    def _refused(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or error
        self._app.notify(f"Not done: {reason}", severity="error", timeout=10, markup=False)

    def _study(self, name: str) -> StudyDir:
        return StudyDir(self._results, name)


def weights_taken(keys: Sequence[Key], snapshot: Snapshot) -> int:
    """The number of other trials that start from, or learn from, a file of one of these."""
    own = set(keys)
    others = (run for run in snapshot.runs if run.key not in own)
    return sum(any(parent_key(weights.source) in own for weights in run.trial.given) for run in others)
