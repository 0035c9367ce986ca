"""docs/tutorial.md: every command on the page works, in its order, and does what the page says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
COMMANDS = [
    line
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if not language
]

SMALLER = {"--trials 12": "--trials 2", "--seeds 3": "--seeds 2"}  # what would take long even on a slice


def on_a_slice(command: str) -> list[str]:
    for words, fewer in SMALLER.items():
        command = command.replace(words, fewer)
    program, *words = command.split()
    assert program == "mnist-suite"
    # 256: the largest batch of a default recipe. Final evaluation and report keep the slice of their study.
    return words + ["--limit", "256"] * (words[0] in ("sweep", "pretrain", "finetune"))


def test_the_page_has_all_six_steps() -> None:
    steps = re.findall(r"^## (\d)\.", PAGE.read_text(), re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5", "6"]
    assert len(COMMANDS) >= 10


@pytest.mark.slow
def test_every_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_SUITE_RESULTS", raising=False)
    said: dict[str, str] = {}
    for command in COMMANDS:
        done = run(*on_a_slice(command))
        assert done.code == 0, (command, done.err)
        said[command] = done.out
    shown = PAGE.read_text().splitlines()
    board = said["mnist-suite leaderboard tutorial"]
    first = PAGE.read_text().partition("## 1.")[2].partition("## 2.")[0]
    for column in re.findall(r"^- `([^`]+)`", first, re.MULTILINE):
        assert column in board
    assert "train time" in board and "*1" in board
    for command in ("mnist-suite leaderboard tutorial", "mnist-suite leaderboard search"):
        titles = next(
            line for line in shown if line.startswith(" #") and ("best of arm" in line) == ("search" in command)
        )
        for title in re.split(r"  +", titles.strip()):
            assert title in said[command], title
    every = said["mnist-suite leaderboard"]
    assert "usual" in every and "constant" in every and "tutorial" in every
    search = next(text for command, text in said.items() if "--study search" in command)
    assert "the default recipe" in search and "in the search" in search
    final = next(text for command, text in said.items() if "--final" in command)
    assert "95% of the mean" in final
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert re.search(r"digit\.png.*\d\d", said["mnist-suite predict model digit.png"])


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / link).exists(), link
