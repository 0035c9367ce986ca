"""The options of all commands: bounds of numbers, unknown users in paths, and their order in `--help`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.models import OptionInfo

from suite.cli.main import app, main
from suite.cli.options import takes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process; returns its exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MNIST_SUITE_RESULTS", str(tmp_path / "results"))
        monkeypatch.setattr(sys, "argv", ["mnist-suite", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capfd.readouterr()

    return command


def commands(group: typer.Typer = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for one in group.registered_commands:
        assert one.callback is not None
        yield (*path, one.name or one.callback.__name__), one.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, (*path, str(inner.name)))


def numeric_options() -> Iterator[tuple[tuple[str, ...], str, OptionInfo]]:
    """The path of the command, the name of the option and its declaration."""
    for path, callback in commands():
        for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
            kind, *declared = get_args(parameter.annotation) or (parameter.annotation,)
            if {kind, *get_args(kind)} & {int, float}:
                (option,) = declared
                assert isinstance(option, OptionInfo)
                yield path, f"--{name.replace('_', '-')}", option


NUMERIC = list(numeric_options())


def test_every_number_has_bounds() -> None:
    """Without both bounds Typer lets nan or infinity pass."""
    assert {"--max-flops", "--trial-timeout", "--fraction", "--seed", "--top"} <= {name for _, name, _ in NUMERIC}
    for path, name, option in NUMERIC:
        assert option.min is not None and option.min >= 0, (path, name)
        assert option.max is not None and option.max <= 1e18, (path, name)


INVALID = st.one_of(
    st.sampled_from(["nan", "NaN", "-nan", "inf", "Infinity", "-inf", "1e400", "-1e400", "9" * 5000, "", " ", "0x10"]),
    st.floats(max_value=-1e-6, allow_infinity=False).map(repr),
    st.integers(max_value=-1).map(str),
    st.integers(min_value=10**19).map(str),
    st.floats(min_value=1e19, allow_infinity=False).map(repr),
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(NUMERIC), value=INVALID)
def test_numbers_out_of_bounds_get_one_message(run: Run, where: tuple[Any, ...], value: str) -> None:
    """nan, infinity, negative and huge values of every numeric option are invalid input, and nothing runs."""
    path, name, _ = where
    code, out, errors = run(*path, f"{name}={value}")
    assert code == 2, errors
    assert out == ""
    assert name in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("option", ["--workers", "--population"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "257", "1e2", "9" * 5000, "٣", "many"])
def test_numbers_of_trials_are_a_number_or_auto(run: Run, option: str, value: str) -> None:
    code, out, errors = run("sweep", "tutorial", f"{option}={value}")
    assert (code, out) == (2, "")
    assert f"{option} takes a number from 1 to 256, or auto" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--results=~nobody-of-this-name"),
        ("sweep", "~nobody-of-this-name/mine.py"),
        ("finetune", "--backbone", "cnn", "--from", "~nobody-of-this-name/model"),
        ("pretrain", "--dataset", "folder:~nobody-of-this-name"),
        ("data", "import", "~nobody-of-this-name/mnist"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_home_of_an_unknown_user_is_invalid_input(run: Run, arguments: tuple[str, ...]) -> None:
    """It ended in a traceback: `pathlib` raises RuntimeError."""
    code, out, errors = run(*arguments)
    assert (code, out) == (2, "")
    assert "nobody-of-this-name" in errors
    assert "Traceback" not in errors


def test_weights_of_a_training_from_random_weights_are_refused(run: Run) -> None:
    """`--strategy scratch --pretrained` ignored the weights without a word."""
    code, _, errors = run("finetune", "--backbone", "timm:resnet18", "--strategy", "scratch", "--pretrained")
    assert code == 2
    assert "starts from random weights" in errors


@pytest.mark.parametrize("changes", [(), ("--set", "recipe.lr=0.3"), ("--set", "lr=0.3")])
def test_a_value_that_is_set_is_no_longer_searched(run: Run, changes: tuple[str, ...]) -> None:
    """`--set recipe.lr=...` left "lr" in the search space, and the search replaced the value."""
    code, out, errors = run("sweep", "mnist", "--dry-run", "--json", *changes)
    assert code == 0, errors
    space = re.search(r'\n  "space": \{(.*?)\n  \}', out, re.DOTALL)
    assert space
    assert ('"lr"' in space[1]) == (not changes)
    assert out.count('"lr": 0.3') == (4 if changes else 0)


def test_a_dry_run_says_in_a_few_lines_what_would_run(run: Run) -> None:
    code, out, errors = run("sweep", "mnist", "--dry-run", "--trials", "6", "--set", "epochs=3", "--max-params", "1e6")
    assert code == 0, errors
    lines = out.splitlines()
    assert len(lines) <= 12 and lines[0].startswith("Study mnist would run 6 trials on mnist;")
    for name, trials in {"cnn-scratch": 2, "cnn-head": 2, "lite0-head": 1, "lite0-partial": 1}.items():
        assert any(line.split()[:3] == [name, str(trials), "x"] for line in lines), name
    assert "lr 0.001 to 0.3 (log)" in out and "caps: params=1000000" in out and "cnn is pretrained on mnist" in out


def test_two_spellings_on_one_command_line_are_refused(run: Run) -> None:
    code, _, errors = run("sweep", "mnist", "--dry-run", "--set", "lr=0.3", "--set", "recipe.lr=0.4")
    assert code == 2
    assert "'lr' and 'recipe.lr' are two spellings of one parameter" in errors


def test_options_of_a_dataclass_reach_the_command_as_one_object() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Common:
        seed: int = 0

    @dataclass(frozen=True, kw_only=True)
    class Own(Common):
        name: Annotated[str, typer.Option()]

    seen: list[Own] = []
    command = takes(Own)(seen.append)
    assert [*inspect.signature(command).parameters] == ["name", "seed"]  # its own options come first in --help
    command(seed=3, name="x")
    assert seen == [Own(seed=3, name="x")]


def test_the_help_names_every_backbone_strategy_and_head() -> None:
    """The texts are written out, because `--help` loads no torch; this keeps them complete."""
    from suite.cli.train import FinetuneOptions
    from suite.models.backbones import BACKBONES
    from suite.models.heads import HEADS
    from suite.models.strategies import TRAINED

    texts = {
        name: option.help or ""
        for name, hint in get_type_hints(FinetuneOptions, include_extras=True).items()
        for option in get_args(hint)
        if isinstance(option, OptionInfo)
    }
    kinds = {kind.model_fields["kind"].default for kind in HEADS}
    strategies = {kind.model_fields["kind"].default for kind in TRAINED} - {"pretrain"}
    for option, names in (("backbone", set(BACKBONES)), ("head", kinds), ("strategy", strategies)):
        assert names and names <= set(re.findall(r"[\w-]+", texts[option])), option
