"""Draw a digit and see a model's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.geometry import Size
from textual.widgets import Footer

from suite.ranking.leaderboard import text
from tui.draw.aligned import cut, right, widest
from tui.keys import bindings
from tui.messages import Predicted
from tui.model.detail import Detail
from tui.model.snapshot import Key, Run, Snapshot
from tui.screens.base import LiveScreen
from tui.screens.confirm import ChooseScreen, PromptScreen
from tui.widgets.budget import bar
from tui.widgets.canvas import Canvas
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine
from tui.work import commands
from tui.work.predictor import Predictor, preparation, sample

OFFERED = 50  # models to choose from
PATH = "path"  # the choice of a directory instead of a trial


class PadScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("model", "model"), ("sample", "sample"), hidden=(("back", "app.mode('board')"),)
    )

    def __init__(self) -> None:
        super().__init__()
        self.predictor: Predictor | None = None
        self.key: Key | None = None
        self.model = ""
        self._state = "no model yet: m chooses one"
        self._note = ""  # on the sample
        self._sample_pixels: list[list[int]] = []  # of the sample that the note is about
        self._answer: tuple[str, dict[str, float]] | None = None

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with Horizontal():
            yield Canvas(id="canvas")
            with Vertical():
                yield Static(id="model", markup=False)
                yield Static(id="probabilities", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Canvas).focus()

    def on_unmount(self) -> None:
        if self.predictor is not None:
            self.predictor.close()

    def on_screen_resume(self) -> None:
        """Choose the run under the leaderboard's cursor, if it has a model and no directory was chosen.

        Its model may have to be exported, so that a read-only dashboard waits to be asked.
        """
        if self.session.readonly:
            return
        run = self.session.snapshot.find(self.session.focus_key)
        if run is not None and has_model(run) and run.key != self.key and not self.model.startswith(PATH):
            self._choose(run)

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        self.query_one(StatusLine).show("Pad", snapshot, self.session.problem, self.session.readonly)
        self._show()

    def _show(self) -> None:
        words = [self.model or "no model", self._state]
        if self._note:
            words.append(self._note)
        pen = self.query_one(Canvas)
        words.append(f"pen {'down' if pen.down else 'up'}{', eraser' if pen.erasing else ''}")
        self.query_one("#model", Static).update("\n".join(words))
        lines: list[str] = []
        if self._answer is not None:
            best, probabilities = self._answer
            lines = probability_lines(best, probabilities, self.query_one("#probabilities").size)
        self.query_one("#probabilities", Static).update("\n".join(lines))

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    # --- the model ---

    def action_model(self) -> None:
        runs = [run for run in self.session.snapshot.runs if has_model(run)]
        runs.sort(key=lambda run: -(run.row.accuracy or 0.0))
        options = [(PATH, "the directory of an exported model …")]
        options = [
            (f"{r.row.study}/{r.row.trial}", f"{text(r.row, 'accuracy')}  {r.row.study}/{r.row.trial}  {r.row.arm}")
            for r in runs[:OFFERED]
        ] + options

        def chosen(name: str | None) -> None:
            if name == PATH:
                self._ask_path()
            elif name is not None:
                study, _, trial = name.partition("/")
                if run := self.session.snapshot.find((study, trial)):
                    self._choose(run)

        current = "/".join(self.key or self.session.focus_key or ())
        self.app.push_screen(ChooseScreen("Model", options, current), chosen)

    def _ask_path(self) -> None:
        def given(path: str | None) -> None:
            if path:
                self.key, self.model = None, f"{PATH} {path}"
                self._serve(None, ["predict", str(commands.model_folder(path)), "--serve"])

        check = partial(commands.refusal, commands.model_folder)
        self.app.push_screen(PromptScreen("Directory of an exported model", check=check), given)

    def _choose(self, run: Run) -> None:
        self.key = run.key
        self.model = f"{run.row.study}/{run.row.trial}\n{run.row.arm}  {text(run.row, 'accuracy')}"
        version = (run.record.artifact_sha256 if run.record else None) or "unknown"
        self._serve(*preparation(*run.key, version, self.session.results))

    def _serve(self, before: list[str] | None, words: list[str]) -> None:
        if self.predictor is not None:
            self.predictor.close()
        self._answer = None
        predictor = Predictor(
            words, self._answered, lambda state: self._status_changed(predictor, state), self.session.environment
        )
        self.predictor = predictor
        predictor.start(before)
        predictor.ask(self.query_one(Canvas).pixels)
        self._show()

    def _answered(self, label: str, probabilities: dict[str, float]) -> None:
        self.post_message(Predicted(label, probabilities))

    def _status_changed(self, predictor: Predictor, state: str) -> None:
        if predictor is self.predictor:  # not one that was closed
            self._state = state
            self.app.call_later(self._show)

    def on_predicted(self, message: Predicted) -> None:
        self._answer = (message.label, message.probabilities)
        self._show()

    def on_canvas_drawn(self) -> None:
        pixels = self.query_one(Canvas).pixels
        if pixels != self._sample_pixels:
            self._note = ""
        if self.predictor is not None:
            self.predictor.ask(pixels)
        self._show()

    # --- samples ---

    def action_sample(self) -> None:
        run = self.session.snapshot.find(self.key)
        self._note = "fetching a sample …"
        self._show()
        dataset = run.trial.dataset if run else self.predictor.dataset if self.predictor else ""
        self._sample(dataset or "mnist")

    @work(thread=True, exclusive=True, exit_on_error=False)
    def _sample(self, dataset: str) -> None:
        try:
            pixels, label = sample(["data", "sample", "--json", "--", dataset], self.session.environment)
        except ValueError as error:
            self.app.call_later(self._sampled, None, str(error))
            return
        self.app.call_later(self._sampled, pixels, label)

    def _sampled(self, pixels: list[list[int]] | None, words: str) -> None:
        """Load a sample; `words` is its label, or the reason why there is none."""
        if pixels is None:
            self._note = f"No sample: {words}"
        else:
            self._note = f"sample of {len(pixels)} x {len(pixels)} pixels, labelled {words}"
            self._sample_pixels = pixels
            self.query_one(Canvas).load(pixels)
        self._show()


def probability_lines(best: str, probabilities: Mapping[str, float], room: Size) -> list[str]:
    """A bar for each class, `best` marked, within `room`: where there are more classes than lines, the likeliest."""
    shown = list(probabilities.items())
    height = room.height or len(shown)
    if len(shown) > height:
        shown = sorted(shown, key=lambda item: (item[0] != best, -item[1]))[: max(1, height - 1)]
    name = min(widest([label for label, _ in shown]), max(4, (room.width or 80) - 27))
    lines = [
        f"{'▶' if label == best else ' '} {right(cut(label, name), name)} {bar(p, 16)} {100 * p:5.1f}%"
        for label, p in shown
    ]
    more = len(probabilities) - len(shown)
    return [*lines, f"  … and {more} less likely"] if more and height > 1 else lines


def has_model(run: Run) -> bool:
    return run.record is not None and run.record.artifact is not None and run.row.state == "finished"
