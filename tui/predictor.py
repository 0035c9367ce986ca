"""A model in a process of its own, asked over pipes, so that the dashboard never loads torch.

One question at a time: while it thinks, only the newest drawing waits.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tui.commands import PROGRAM, export_words

Pixels = Sequence[Sequence[int]]
Answer = Callable[[str, dict[str, float]], object]


class Predictor:
    """Asks `mnist-suite predict MODEL --serve`; `answer` and `status` are called from a thread."""

    def __init__(
        self, words: Sequence[str], answer: Answer, status: Callable[[str], object], environment: Mapping[str, str]
    ) -> None:
        self._words, self._answer, self._status = words, answer, status
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._waiting: Pixels | None = None
        self._busy = True  # until the model is loaded
        self._closed = False

    def start(self, before: Sequence[str] | None = None) -> None:
        """Start in the background; `before` is a command that must succeed first."""
        threading.Thread(target=self._run, args=(before,), name="predictor", daemon=True).start()

    def ask(self, pixels: Pixels) -> None:
        with self._lock:
            self._waiting = [list(line) for line in pixels]
        self._next()

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
            self._status(f"No model: {_last_line(errors)}")
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
            self._take(line)
        code = process.wait()
        if not self._closed:
            self._status(f"No model (code {code}): {_last_line(''.join(errors))}")

    def _take(self, line: str) -> None:
        try:
            data = json.loads(line)
        except ValueError:
            return
        if not isinstance(data, dict):
            return
        if data.get("ready"):
            self._status("ready")
        elif "probabilities" in data:
            self._answer(str(data.get("label", "")), {str(k): float(v) for k, v in data["probabilities"].items()})
        elif "error" in data:
            self._status(str(data["error"]))
        self._busy = False
        self._next()

    def _next(self) -> None:
        with self._lock:
            if self._busy or self._waiting is None or self._process is None or self._process.stdin is None:
                return
            pixels, self._waiting, self._busy = self._waiting, None, True
            try:
                self._process.stdin.write(json.dumps({"pixels": pixels}) + "\n")
                self._process.stdin.flush()
            except OSError:
                pass  # it has ended; the reader says why


def sample(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Pixels, str]:
    """Run a command that prints {"pixels": ..., "label": ...}. Raises ValueError in words."""
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
        raise ValueError(_last_line(done.stderr))
    try:
        data = json.loads(done.stdout)
        pixels = [[max(0, min(255, int(p))) for p in line] for line in data["pixels"]]
        if len(pixels) != 28 or any(len(line) != 28 for line in pixels):
            raise ValueError("not an image of 28 by 28 pixels")
        return pixels, str(data["label"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the sample cannot be read: {error}") from None


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def model_place(study: str, trial: str, version: str) -> Path:
    """Where the pad keeps an exported model; `version` tells apart what stood under one name at different times."""
    from platformdirs import user_cache_path

    return user_cache_path("mnist-suite") / "pad" / study / f"{trial}-{version[:12]}"


def preparation(study: str, trial: str, version: str, results: Path) -> tuple[list[str] | None, list[str]]:
    """The command that exports a trial if it must be, and the one that serves it."""
    place = model_place(study, trial, version)
    before = None if place.is_dir() and any(place.iterdir()) else export_words(study, trial, place, results)
    return before, ["predict", str(place), "--serve"]
