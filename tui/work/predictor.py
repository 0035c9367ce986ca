"""Predictions by a model in a process of its own, over pipes, so that the dashboard does not load torch.

One image is predicted at a time. Of the images that arrive meanwhile, only the newest is kept.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from suite.store.files import scratch_dir
from tui.work.commands import PROGRAM, export_words, last_line

Pixels = Sequence[Sequence[int]]  # rows of grey levels, 0 to 255
Answer = Callable[[str, dict[str, float]], object]


class Predictor:
    """Runs `mnist-suite predict MODEL --serve`.

    Args:
        words: the arguments of the command.
        answer: called from another thread with the predicted label and the probability of each label.
        status: called from another thread with a text on the state of the process.
        environment: of the process.
    """

    def __init__(
        self, words: Sequence[str], answer: Answer, status: Callable[[str], object], environment: Mapping[str, str]
    ) -> None:
        self._words, self._answer, self._status = words, answer, status
        self._ready = "ready"
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._waiting: Pixels | None = None
        self._busy = True  # until the model is loaded
        self._closed = False
        self.dataset = ""  # that the model was trained on; known when it is ready

    def start(self, before: Sequence[str] | None = None) -> None:
        """Start in the background, after the command `before` has succeeded."""
        threading.Thread(target=self._run, args=(before,), name="predictor", daemon=True).start()

    def ask(self, pixels: Pixels) -> None:
        """Predict this image as soon as the process is free, in place of one that still waits."""
        with self._lock:
            self._waiting = [list(line) for line in pixels]
        self._send()

    def close(self) -> None:
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def _run(self, before: Sequence[str] | None) -> None:
        try:
            if before is not None and not self._prepare(before):
                return
            self._serve()
        except OSError as error:
            self._status(f"No model: {error.strerror or error}")

    def _spawn(self, words: Sequence[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*PROGRAM, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=self._environment
        )
        return self._process

    def _prepare(self, words: Sequence[str]) -> bool:
        self._status("exporting the model …")
        process = self._spawn(words)
        _, errors = process.communicate()
        self._process = None
        if process.returncode and not self._closed:
            self._status(f"No model: {last_line(errors)}")
        return process.returncode == 0

    def _serve(self) -> None:
        if self._closed:
            return
        self._status("loading the model …")
        process = self._spawn(self._words)
        errors: list[str] = []
        assert process.stdout is not None and process.stderr is not None
        threading.Thread(target=lambda lines=process.stderr: errors.extend(lines), daemon=True).start()
        for line in process.stdout:
            self._read_answer(line)
        code = process.wait()
        if not self._closed:
            self._status(f"No model (code {code}): {last_line(''.join(errors))}")

    def _read_answer(self, line: str) -> None:
        try:
            data = json.loads(line)
        except ValueError:
            return
        if not isinstance(data, dict):
            return
        if data.get("ready"):
            self.dataset = str(data.get("dataset", ""))
            size = data.get("size")
            self._ready = f"ready; it takes {size} x {size} pixels" if size else "ready"
            self._status(self._ready)
        elif "probabilities" in data:
            self._status(self._ready)  # in place of why there was no answer before
            self._answer(str(data.get("label", "")), {str(k): float(v) for k, v in data["probabilities"].items()})
        elif "error" in data:
            self._status(str(data["error"]))
            self._answer("", {})
        self._busy = False
        self._send()

    def _send(self) -> None:
        with self._lock:
            if self._busy or self._waiting is None or self._process is None or self._process.stdin is None:
                return
            pixels, self._waiting, self._busy = self._waiting, None, True
            try:
                self._process.stdin.write(json.dumps({"pixels": pixels}) + "\n")
                self._process.stdin.flush()
            except OSError:
                pass  # the process has ended; `_serve` reports why


def sample(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Pixels, str]:
    """Run a command that prints {"pixels": ..., "label": ...}; returns both. Raises ValueError with a readable message.

    The pixels are N rows of N grey levels, 0 to 255, at the sample's own size.
    """
    try:
        done = subprocess.run(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=dict(environment),
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(str(error)) from None
    if done.returncode:
        raise ValueError(last_line(done.stderr))
    try:
        data = json.loads(done.stdout)
        pixels = [[max(0, min(255, int(p))) for p in line] for line in data["pixels"]]
        if not pixels or any(len(line) != len(pixels) for line in pixels):
            raise ValueError("not a square image")
        return pixels, str(data["label"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the sample cannot be read: {error}") from None


def model_place(study: str, trial: str, version: str) -> Path:
    """Where the pad keeps an exported model. `version`, a hash of the weights, makes a replaced trial a new model."""
    return scratch_dir("pad") / study / f"{trial}-{version[:12]}"


def preparation(study: str, trial: str, version: str, results: Path) -> tuple[list[str] | None, list[str]]:
    """The command that exports a trial's model, None if that was done before, and the command that serves it."""
    place = model_place(study, trial, version)
    before = None if place.is_dir() and any(place.iterdir()) else export_words(study, trial, place, results)
    return before, ["predict", str(place), "--serve"]
