"""What `predict` prints: an answer for each picture on stdout; progress, failures and totals on stderr."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from suite.cli import console
from suite.errors import printable
from suite.export.predict import Prediction, Predictor
from suite.export.seen import Seen
from suite.store.files import dump_json


def predict(predictor: Predictor, files: Sequence[Path], seen: Seen | None, *, top: int | None, quiet: bool) -> int:
    """Print the answers: the best `top` classes of each as text, or JSON if it is None. Returns the exit code."""
    tally = Tally(predictor.card.classes)
    began = time.monotonic()
    with console.step_progress("pictures", quiet) as on_step:
        for done, prediction in enumerate(predictor.files(files), 1):
            if seen is not None and prediction.picture is not None:
                seen.write(done - 1, prediction.picture)
            tally.add(files[done - 1], prediction)
            _print(prediction, top, first=done == 1)
            on_step(done, len(files))
    if top is None:
        print("\n]")
    if not quiet:
        for line in tally.lines(time.monotonic() - began):
            console.err.print(line)
    return 0 if not tally.failed else 1 if tally.answered else 2


class Tally:
    """Counts answers, failures, and right answers where a folder names the class."""

    def __init__(self, classes: Collection[str]) -> None:
        self.classes = set(classes)
        self.answered = self.failed = self.right = self.known = 0

    def add(self, path: Path, prediction: Prediction) -> None:
        if "error" in prediction.answer:
            self.failed += 1
            return
        self.answered += 1
        if (label := self._named(path)) is not None:
            self.known += 1
            self.right += prediction.answer["label"] == label

    def _named(self, path: Path) -> str | None:
        """The class of which a folder has the name, the nearest one."""
        names = (unicodedata.normalize("NFC", name) for name in reversed(path.absolute().parent.parts))
        return next((name for name in names if name in self.classes), None)

    def lines(self, seconds: float) -> Iterator[str]:
        total = self.answered + self.failed
        if total > 1:
            failed = f", {self.failed} could not be used" if self.failed else ""
            rate = total / max(seconds, 1e-9)
            yield f"{total} pictures in {console.duration(seconds)}, {rate:.0f} images/s{failed}"
        if self.known > 1:
            yield (
                f"{self.right} of {self.known} ({100 * self.right / self.known:.2f}%) are answered as the folder that "
                "they lie in is named"
            )


def _print(prediction: Prediction, top: int | None, *, first: bool) -> None:
    answer = prediction.answer
    if top is None:
        indented = dump_json(answer).replace("\n", "\n  ")
        print("[\n  " if first else ",\n  ", indented, sep="", end="")
    elif "error" in answer:
        console.err.print(f"mnist-suite: {printable(' '.join(answer['error'].split()))}", soft_wrap=True)
    else:
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:top]
        shown = "  ".join(f"{label} {100 * p:.1f}%" for label, p in ranked)
        console.out.print(f"{answer['image']}: {answer['label']}   ({shown})")
