"""What a shell completes: all that there is, quickly, and from the right place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import typer

from suite.cli import completion
from suite.cli.main import app
from suite.interpreter import command
from suite.models.backbones import BACKBONES
from suite.models.heads import HEADS
from suite.models.strategies import TRAINED
from suite.spec import METHODS
from suite.spec.load import experiment_names, load_experiment

FIXTURE = Path(__file__).parents[1] / "fixtures" / "study-0.1"


def completed(name: str, parameter: str, incomplete: str, *given: str) -> list[str]:
    """The completions of a parameter of a command, after the words that are given."""
    root: Any = typer.main.get_command(app)
    completion.attach(root)
    command = root.commands[name]
    context = command.make_context(name, [*given], resilient_parsing=True)
    one = next(one for one in command.params if one.name == parameter)
    return [item.value for item in one.shell_complete(context, incomplete)]


def test_every_name_is_offered() -> None:
    assert set(completed("finetune", "backbone", "")) == {*BACKBONES, "timm:"}
    assert set(completed("finetune", "backbone", "timm:")) == {f"timm:{name}" for name in timm.list_models()}
    strategies = {"head", "int8"} | {kind.model_fields["kind"].default for kind in TRAINED} - {"pretrain"}
    assert set(completed("finetune", "strategy", "")) == strategies
    assert set(completed("explain", "methods", "")) == set(METHODS)
    assert set(completed("finetune", "head", "")) == {kind.model_fields["kind"].default for kind in HEADS}
    assert completed("sweep", "experiment", "") == experiment_names()
    assert set(completed("sweep", "arms", "", "mnist")) == set(load_experiment("mnist").arms)
    assert completed("sweep", "arms", "cnn-head,cnn") == ["cnn-head,cnn-scratch"]
    assert "fashion-mnist" in completed("pretrain", "dataset", "fa")


def test_studies_and_trials_are_those_of_the_results_directory(tmp_path: Path) -> None:
    place = ("--results", str(FIXTURE / "finished"))
    assert completed("leaderboard", "study", "sm", *place) == ["small"]
    trials = sorted(f"small/{path.name}" for path in (FIXTURE / "finished" / "small" / "trials").iterdir())
    assert completed("export", "trials", "small/", *place) == trials
    assert completed("export", "trials", "", "--results", f"{tmp_path}/none") == []
    assert completed("gallery", "studies", "sm", *place) == ["small"]


def test_a_file_of_the_user_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "e.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert completed("sweep", "arms", "", str(path)) == []
    assert not (tmp_path / "ran").exists()


def test_the_program_answers_a_shell_and_loads_no_torch() -> None:
    environment = {
        **os.environ,
        "_MNIST_SUITE_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": "mnist-suite finetune --backbone timm:resnet1",
    }
    words = command()
    words[1:1] = ["-X", "importtime"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert "timm:resnet18" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded and not loaded & {"torch", "timm", "optuna", "suite.spec"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("words", [{}, {"COMP_WORDS": "mnist-suite 'sw", "COMP_CWORD": "one"}])
def test_what_is_no_request_of_a_shell_gets_at_most_one_paragraph(
    suite: Callable[..., Any], shell: str, words: dict[str, str]
) -> None:
    done = suite(_MNIST_SUITE_COMPLETE=f"complete_{shell}", **words)
    assert done.returncode in (0, 2) and len(done.stderr.splitlines()) <= 1, done.stderr
