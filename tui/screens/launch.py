"""The launch form: checked while the user types, with the equivalent command line.

A file of the user's own is run to know what it declares: in another process, and only when its field is left.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Footer, Input, Label

from suite.errors import InputError
from suite.spec import Experiment
from suite.spec.load import experiment_names, load_experiment
from suite.store.study import StudyDir
from tui import commands
from tui.commands import ENGINES, Form
from tui.keys import bindings
from tui.model.detail import clean
from tui.model.snapshot import StudyView
from tui.screens.confirm import ConfirmScreen
from tui.session import Session
from tui.widgets.checklist import Checklist
from tui.widgets.static import Static

FIELDS = {
    "experiment": "a name, or the path of your own .py file",
    "study": "the name of the directory below the results",
    "trials": "in all, over the arms; empty: as the experiment says",
    "workers": "trials at a time; empty: chosen for this machine",
    "engine": " or ".join(ENGINES),
    "device": "auto, cpu, cuda, cuda:N or mps",
    "limit": "images of each split for a quick try; empty: all",
}
UNCHECKED = "not checked yet: enter runs this file"
CHECKING = "checking …"


def form_from(view: StudyView | None, results: Path) -> Form:
    """An empty form, or one that repeats a study under a new name."""
    known = experiment_names()
    if view is None:
        name = "mnist" if "mnist" in known or not known else known[0]
        return Form(experiment=name, study=commands.free_name(name, results))
    study = commands.free_name(f"{view.name}", results)
    if view.file is None:
        return Form(study=study)
    experiment = view.file.experiment
    return Form(
        experiment=experiment.name,
        study=study,
        trials=str(experiment.trials),
        workers=str(view.status.workers) if view.status and view.status.workers > 1 else "",
        limit=str(experiment.limit or ""),
        arms=tuple(experiment.arms),
    )


class LaunchScreen(ModalScreen[None]):
    """Settings of a new sweep. `problems` holds the errors by field."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(("start", "start"), priority=True),
        *bindings(("back", "cancel", "Cancel")),
    ]

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self._known: dict[str, Experiment | str] = {}  # experiments by name or file, or why there is none
        self._checking = ""  # the file that is run at present
        self._starting = False  # start when it is known to be valid
        self._arms_of: Experiment | str = ""  # the experiment whose arms are listed

    @property
    def session(self) -> Session:
        return cast("Session", self.app)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="form", can_focus=False):
            yield Label("Launch a sweep", classes="question")
            for name, hint in FIELDS.items():
                choices = {
                    "experiment": experiment_names(),
                    "engine": ENGINES,
                    "device": ("auto", "cpu", "cuda", "mps"),
                }
                suggester = SuggestFromList(choices[name]) if name in choices else None
                with Horizontal(classes="field"):
                    yield Label(name)
                    yield Input(getattr(self.form, name), placeholder=hint, id=name, suggester=suggester, compact=True)
                    yield Static(id=f"problem-{name}", classes="problem", markup=False)
            with Horizontal(classes="field tall"):
                yield Label("arms")
                yield Checklist(id="arms")
                yield Static(id="problem-arms", classes="problem", markup=False)
            yield Static(id="asks", markup=False)
            yield Static(id="command", classes="command", markup=False)
            yield Label("tab  next field    space  arm in or out    ctrl+s  start    escape  cancel", classes="hint")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#experiment", Input).focus()
        self._validate()

    @on(Input.Changed)
    @on(Checklist.Changed)
    def _typed(self) -> None:
        self._validate()

    @on(Input.Submitted)
    def _next(self) -> None:
        self.focus_next()

    @on(Input.Blurred, "#experiment")
    def _left(self) -> None:
        name, experiment = self.form.experiment.strip(), self._experiment()
        if self.is_current and commands.is_own_file(name) and isinstance(experiment, str) and experiment != CHECKING:
            self._check(name)

    @work(exclusive=True)
    async def _check(self, reference: str) -> None:
        """Let another process run the user's file; this one is cancelled when the form is closed."""
        self._checking = reference
        self._validate()
        try:
            self._known[reference] = await commands.declared(reference, self.session.environment)
        except InputError as error:
            self._known[reference] = clean(str(error))
        finally:
            if self._checking == reference:
                self._checking = ""
        self._validate()
        if self._starting and self.is_current:
            self.action_start()

    def _experiment(self) -> Experiment | str:
        """The experiment that is typed, or why there is none."""
        name = self.form.experiment.strip()
        if name not in self._known:
            if commands.is_own_file(name):
                return CHECKING if name == self._checking else UNCHECKED
            try:
                self._known[name] = load_experiment(name)
            except InputError as error:
                self._known[name] = str(error)
        return self._known[name]

    def _validate(self) -> None:
        """Read the fields into `form`, and show their errors and the command."""
        values = {name: self.query_one(f"#{name}", Input).value for name in FIELDS}
        self.form = replace(self.form, **values)
        experiment = self._experiment()
        self._offer_arms(experiment)
        arms = self.query_one("#arms", Checklist)
        chosen = arms.chosen
        self.form = replace(self.form, arms=() if len(chosen) == arms.option_count else chosen)
        found = commands.problems(self.form, experiment, self.session.results)
        if arms.option_count and not chosen:
            found["arms"] = "choose at least one"
        for name in (*FIELDS, "arms"):
            self.query_one(f"#problem-{name}", Static).update(found.get(name, ""))
        self.query_one("#command", Static).update(f"$ {commands.typed(self._words())}")
        self.problems = found

    def _words(self) -> list[str]:
        return commands.sweep_words(self.form, self.session.results)

    def _offer_arms(self, experiment: Experiment | str) -> None:
        """List the arms of the experiment, and its question, when another experiment was typed."""
        if experiment is self._arms_of:
            return
        first = not self._arms_of
        self._arms_of = experiment
        arms = self.query_one("#arms", Checklist)
        asks = self.query_one("#asks", Static)
        if isinstance(experiment, str):
            arms.fill([], ())
            asks.update("")
            return
        wanted = self.form.arms if first and self.form.arms else tuple(experiment.arms)
        arms.fill([(arm, f"{arm}: {a.backbone}, {a.strategy.kind}") for arm, a in experiment.arms.items()], wanted)
        asks.update(f"{experiment.question} ({experiment.trials} trials on {experiment.dataset})")

    def action_start(self) -> None:
        self._validate()
        self._starting = self._experiment() in (UNCHECKED, CHECKING)
        if self._starting:
            self._left()
            return
        if self.problems:
            field, problem = next(iter(self.problems.items()))
            self.query_one(f"#{field}").focus()
            self.notify(f"{field}: {problem}", severity="warning", markup=False)
            return
        words, study = self._words(), self.form.study.strip()

        def answer(yes: bool | None) -> None:
            if yes:
                log = StudyDir(self.session.results, study).path / "console.log"
                if self.session.start(
                    words, log, f"{study} started; it goes on without this dashboard.", f"{study} is over."
                ):
                    self.dismiss()

        text = "It runs on its own: quitting the dashboard does not end it. x on the leaderboard stops it."
        self.app.push_screen(ConfirmScreen(f"Start study {study}?", text, commands.typed(words)), answer)

    def action_cancel(self) -> None:
        self.dismiss()
