"""The predictor's pipes, with a small program in place of the command line, so that torch is not loaded."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from tui.work import predictor
from tui.work.predictor import Predictor, preparation, sample

STAND_IN = """
import json, sys, time
if sys.argv[1] == "fail":
    sys.exit("it went wrong")
if sys.argv[1] == "data":
    side = int(sys.argv[2]) if sys.argv[2].isdecimal() else 28
    print(json.dumps({"pixels": [[300] * side] * side, "label": "7", "index": 1}))
    sys.exit(0)
if sys.argv[1] == "export":
    sys.exit(0)
print(json.dumps({"ready": True, "classes": ["0", "1"]}), flush=True)
for line in sys.stdin:
    dark = json.loads(line)["pixels"][0][0]
    if dark == 13:
        sys.exit("unlucky")
    if dark == 0:
        print(json.dumps({"error": "it is blank"}), flush=True)
        continue
    time.sleep(0.05)
    print(json.dumps({"label": "1", "probabilities": {"0": 0.0, "1": float(dark)}}), flush=True)
"""


def image(dark: int) -> list[list[int]]:
    return [[dark] * 28 for _ in range(28)]


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(predictor, "PROGRAM", (sys.executable, str(path)))


class Recorder:
    """Keeps the answers and states that a predictor reports."""

    def __init__(self) -> None:
        self.answers: list[float] = []
        self.states: list[str] = []

    def answer(self, label: str, probabilities: dict[str, float]) -> None:
        self.answers.append(probabilities.get("1", -1.0))  # -1: no answer any more

    def until(self, condition) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, (self.answers, self.states)
            time.sleep(0.01)


def test_of_waiting_drawings_only_the_newest_is_predicted() -> None:
    recorder, threads = Recorder(), threading.active_count()
    asked = Predictor(["predict"], recorder.answer, recorder.states.append, os.environ)
    asked.ask(image(1))
    asked.start(["export"])
    for dark in range(2, 10):
        asked.ask(image(dark))
    recorder.until(lambda: recorder.answers and recorder.answers[-1] == 9)
    assert len(recorder.answers) < 9 and "ready" in recorder.states
    asked.close()
    recorder.until(lambda: threading.active_count() <= threads)


def test_failures_are_reported() -> None:
    recorder = Recorder()
    Predictor(["predict"], recorder.answer, recorder.states.append, os.environ).start(["fail"])
    recorder.until(lambda: any("it went wrong" in state for state in recorder.states))
    recorder = Recorder()
    asked = Predictor(["predict"], recorder.answer, recorder.states.append, os.environ)
    asked.start()
    asked.ask(image(13))
    recorder.until(lambda: any("unlucky" in state for state in recorder.states))
    asked.ask(image(1))  # the process has ended: no exception


def test_why_there_is_no_answer_is_shown_until_there_is_one() -> None:
    recorder = Recorder()
    asked = Predictor(["predict"], recorder.answer, recorder.states.append, os.environ)
    asked.start()
    for dark, answer, state in ((0, -1, "it is blank"), (5, 5, "ready"), (0, -1, "it is blank")):
        asked.ask(image(dark))
        recorder.until(lambda wanted=answer: recorder.answers and recorder.answers[-1] == wanted)
        assert recorder.states[-1] == state
    asked.close()


def test_a_sample() -> None:
    pixels, label = sample(["data", "sample"], os.environ)
    assert label == "7" and pixels[0][0] == 255
    for side in (1, 16, 64):  # of data sets with other pictures
        pixels, _ = sample(["data", str(side)], os.environ)
        assert {len(line) for line in pixels} == {side} == {len(pixels)} and pixels[side // 2][side // 2] == 255
    with pytest.raises(ValueError, match="it went wrong"):
        sample(["fail"], os.environ)
    with pytest.raises(ValueError, match="cannot be read"):
        sample(["export"], os.environ)


def test_a_model_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before, words = preparation("s", "0001-a", "f" * 64, tmp_path)
    assert before is not None and before[:2] == ["export", "s/0001-a"] and words[0] == "predict"
    place = Path(words[1])
    place.mkdir(parents=True)
    (place / "model.json").write_text(json.dumps({}))
    assert preparation("s", "0001-a", "f" * 64, tmp_path) == (None, words)
    assert preparation("s", "0001-a", "e" * 64, tmp_path)[0] is not None


def test_models_of_the_pad_lie_in_the_suites_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST_SUITE_CACHE moves them too, so that a read-only home is no hindrance."""
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))
    before, serve = preparation("study", "0000-12345678", "abcdef", tmp_path / "results")
    assert before is not None and str(tmp_path / "pad") in " ".join(before)
    assert str(tmp_path / "pad") in " ".join(serve)
