"""The launch form: a command, its fields with what is wrong with them, and the equivalent command line.

Nothing is run while the user types. A check on request, and the start, run `--dry-run` in another process where that is
needed: only it runs a file of the user's.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Footer, Input, Label

from suite.errors import InputError
from suite.spec import Experiment
from suite.spec.load import load_experiment
from suite.store.files import scratch_dir
from suite.store.study import StudyDir
from tui.keys import bindings
from tui.model.logs import clean
from tui.screens.confirm import ChooseScreen, ConfirmScreen
from tui.session import Session
from tui.widgets.checklist import Checklist
from tui.widgets.choice import Choice
from tui.widgets.static import Static
from tui.work import commands
from tui.work.form import COMMANDS, ON, Field, Form, is_own_file

UNCHECKED = "not checked yet: ctrl+t runs this file"
CHECKING = "checking …"
STUDIES = ("of", "from", "warm-start")  # fields in which a study is named
TITLES = {
    "sweep": "search an experiment",
    "pretrain": "train a backbone from random weights",
    "finetune": "adapt a pretrained backbone",
    "evaluate": "test accuracy of the finalists; reads the test images",
}


class Fields(VerticalScroll, inherit_bindings=False):
    """The rows of the form. The keys that would scroll them move from field to field, which scrolls as well."""


class LaunchScreen(ModalScreen[None]):
    """Settings of a new command. `problems` holds the errors by field."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(("start", "start"), ("check", "check"), priority=True),
        *bindings(("back", "cancel", "Cancel"), hidden=(("interrupt", "app.interrupt", "Copy"),)),
        Binding("f1", "app.help", "Help"),  # a question mark is typed
        Binding("down", "app.focus_next", "Next field", show=False),  # letters are typed
        Binding("up", "app.focus_previous", "Previous field", show=False),
    ]

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.problems: dict[str, str] = {}
        self._known: dict[str, Experiment | str] = {}  # experiments by name or file, or why there is none
        self._checking: list[str] = []  # the command that is checked at present
        self._starting = False  # start when it is known to be valid
        self._arms_of: Experiment | str = ""  # the experiment whose arms are listed

    @property
    def session(self) -> Session:
        return cast("Session", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(classes="form"):
            with Horizontal(classes="field"):
                yield Label("launch", classes="question")
                yield Choice(COMMANDS, self.form.command, id="command-choice")
                yield Static(id="title", markup=False)
            yield Fields(*self._rows(), id="fields", can_focus=False)
            yield Static(id="asks", markup=False)
            yield Static(id="command", classes="command", markup=False)
            yield Static(id="checked", markup=False)
            yield Label("tab next field · space arm in or out · ← → another choice", classes="hint")
        yield Footer()

    def _rows(self) -> list[Widget]:
        rows = [self._row(one) for one in self.form.fields]
        if self.form.command == "sweep":
            problem = Static(id="problem-arms", classes="problem", markup=False)
            rows.insert(2, Horizontal(Label("arms"), Checklist(id="arms"), problem, classes="field tall"))
        return rows

    def _row(self, one: Field) -> Widget:
        value, editor = self.form.value(one), None
        if one.kind == "switch":
            editor = Choice(("no", ON), value or "no", id=one.name)
        elif one.kind == "choice":
            editor = Choice(one.choices, value, id=one.name)
        else:
            choices = one.choices
            if one.name in STUDIES:
                choices = [view.name for view in self.session.snapshot.studies]
            suggester = SuggestFromList(choices) if choices else None
            editor = Input(value, placeholder=one.hint, id=one.name, suggester=suggester, compact=True)
        note = Static(id=f"problem-{one.name}", classes="problem", markup=False)
        return Horizontal(Label(one.label), editor, note, classes="field")

    def on_mount(self) -> None:
        first = self.form.fields[0]
        self.query_one(f"#{first.name}").focus()
        self._validate()

    # --- what was typed ---

    @on(Choice.Changed, "#command-choice")
    async def _command_chosen(self, message: Choice.Changed) -> None:
        message.stop()
        self.form = replace(self.form, command=message.choice.value)
        fields = self.query_one(Fields)
        self._arms_of = ""
        await fields.remove_children()
        await fields.mount_all(self._rows())
        self._validate()

    @on(Choice.Asked)
    def _list_wanted(self, message: Choice.Asked) -> None:
        choice = message.choice
        self.app.push_screen(ChooseScreen("Choose", [(v, v) for v in choice.values], choice.value), choice.choose)

    @on(Input.Changed)
    @on(Choice.Changed)
    @on(Checklist.Changed)
    def _typed(self) -> None:
        self._validate()

    @on(Input.Submitted)
    def _next(self) -> None:
        self.focus_next()

    def _read(self) -> None:
        """Read the fields into `form`."""
        values = dict(self.form.values)
        for one in self.form.fields:
            for widget in self.query(f"#{one.name}"):
                values[one.name] = cast("Input | Choice", widget).value
                if values[one.name] == one.default:  # another command may have another default
                    del values[one.name]
        self.form = replace(self.form, values=values)

    def _experiment(self) -> Experiment | str:
        """The experiment of a sweep that is typed, or why there is none."""
        name = self.form.get("experiment")
        if name not in self._known:
            if is_own_file(name):
                return CHECKING if self._checking else UNCHECKED
            try:
                self._known[name] = load_experiment(name)
            except InputError as error:
                self._known[name] = str(error)
        return self._known[name]

    def _validate(self) -> None:
        """Read the fields, and show their errors and the command."""
        self._read()
        experiment: Experiment | str = ""
        asks = ""
        found: dict[str, str] = {}
        if self.form.command == "sweep":
            experiment = self._experiment()
            self._offer_arms(experiment)
            arms = self.query_one("#arms", Checklist)
            self.form = replace(self.form, arms=() if len(arms.chosen) == arms.option_count else arms.chosen)
            if isinstance(experiment, Experiment):
                count = experiment.trials
                asks = f"{experiment.question} ({count} trials on {experiment.dataset})"
            if arms.option_count and not arms.chosen:
                found["arms"] = "choose at least one"
        found = self.form.problems(self.session.results, experiment) | found
        for one in self.form.fields:
            self._note(one.name, found.get(one.name, ""), one.hint if one.kind in ("choice", "switch") else "")
        if self.form.command == "sweep":
            self._note("arms", found.get("arms", ""))
        self._say("asks", asks)
        self._say("title", TITLES[self.form.command])
        self._say("command", f"$ {commands.typed(self._words())}")
        if not self._checking:
            self._say("checked", "")
        self.problems = found

    def _note(self, name: str, problem: str, hint: str = "") -> None:
        self._say(f"problem-{name}", problem or hint)
        for note in self.query(f"#problem-{name}"):
            note.set_class(not problem, "-hint")

    def _say(self, place: str, text: str) -> None:
        for shown in self.query(f"#{place}").results(Static):
            shown.update(text)

    def _words(self) -> list[str]:
        return self.form.words(self.session.results)

    def _offer_arms(self, experiment: Experiment | str) -> None:
        """List the arms of the experiment when another experiment was typed."""
        if experiment is self._arms_of:
            return
        first = not self._arms_of
        self._arms_of = experiment
        arms = self.query_one("#arms", Checklist)
        if isinstance(experiment, str):
            arms.fill([], ())
            return
        wanted = self.form.arms if first and self.form.arms else tuple(experiment.arms)
        arms.fill([(arm, f"{arm}: {a.backbone}, {a.strategy.kind}") for arm, a in experiment.arms.items()], wanted)

    # --- check and start ---

    def action_check(self) -> None:
        """Let another process check every choice, as `--dry-run` does."""
        self._validate()
        if self.form.command == "evaluate":
            self._say("checked", "evaluate has no check of its own: what it says is in its log.")
        elif self._checking == self._words():
            return
        elif self.session.readonly:
            self.notify("Nothing is started under --readonly.")
        else:
            self._check(self._words())

    @work(exclusive=True)
    async def _check(self, words: list[str]) -> None:
        """Run the check; it is ended when another one begins or the form is closed."""
        reference = self.form.get("experiment") if self.form.command == "sweep" else ""
        self._checking = words
        self._validate()
        self._say("checked", CHECKING)
        said = ""
        try:
            output = await commands.dry_run(words, self.session.environment)
            if is_own_file(reference):
                # the check may have named arms or another data set; the file itself declares all of them
                self._known[reference] = await self._declared(reference, words, output)
        except InputError as error:
            said = clean(str(error))
            if is_own_file(reference) and reference not in self._known:
                self._known[reference] = said
        finally:
            if self._checking == words:
                self._checking = []
        self._validate()
        self._say("checked", f"✗ {said}" if said else "✓ checked: it can start")
        if self._starting and self.is_current and not said:
            self.action_start()
        self._starting = False

    async def _declared(self, reference: str, words: list[str], output: str) -> Experiment:
        """The experiment of a user's file, without the changes that other fields make."""
        if any(option in words for option in ("--arms", "--dataset", "--set", "--trials")):
            output = await commands.dry_run(["sweep", reference], self.session.environment)
        return commands.declared(output)

    def action_start(self) -> None:
        self._validate()
        if self.session.readonly:
            self.notify("Nothing is started under --readonly.")
            return
        if self.form.command == "sweep" and self._experiment() in (UNCHECKED, CHECKING):
            self._starting = True
            if not self._checking:
                self._check(["sweep", self.form.get("experiment")])
            return
        if self.problems:
            name, problem = next(iter(self.problems.items()))
            self.query_one(f"#{name}").focus()
            label = next((one.label for one in self.form.fields if one.name == name), name)
            self.notify(f"{label}: {problem}", severity="warning", markup=False)
            return
        words, study = self._words(), self.form.study
        name = study or self.form.command
        text = "It runs on its own: quitting the dashboard does not end it. x on the board stops it."
        if self.form.command == "evaluate":
            text = "It trains the finalists with new seeds, then reads the test images: do it when the search is over."
        question = f"Start study {name}?" if self.form.command == "sweep" else f"Start {self.form.command} {study}?"
        self.app.push_screen(ConfirmScreen(question, text, commands.typed(words)), partial(self._answered, words, name))

    def _answered(self, words: list[str], name: str, yes: bool | None) -> None:
        if not yes:
            return
        command, study = self.form.command, self.form.study
        own = command in ("sweep", "pretrain", "finetune") and study
        log = StudyDir(self.session.results, study).path / "console.log" if own else scratch_log(command, study)
        begun = f"{name} started; it goes on without this dashboard."
        if self.session.launching.start(words, log, begun, f"{name} is over.", study if own else "", self._trials()):
            self.dismiss()

    def _trials(self) -> int:
        """Number of trials that the search will have; 0 where there is none."""
        if self.form.command != "sweep":
            return 0
        experiment = self._experiment()
        typed = self.form.get("trials")
        return int(typed) if typed.isdecimal() else experiment.trials if isinstance(experiment, Experiment) else 0

    def action_cancel(self) -> None:
        self.dismiss()


def scratch_log(command: str, study: str = "") -> Path:
    """The log of a command that has no study of its own."""
    return scratch_dir("logs") / f"{command}{f'-{study}' if study else ''}.log"
