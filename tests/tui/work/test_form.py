from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from suite.cli.main import app
from suite.spec.load import experiment_names, load_experiment
from tui.model.feed import Watcher
from tui.testing.synthetic import NOW
from tui.work.commands import typed
from tui.work.form import COMMANDS, FIELDS, ON, Form, is_own_file, new_form, settings


def test_a_form_becomes_a_command_line(tmp_path: Path) -> None:
    values = {
        "experiment": "mnist",
        "study": "my",
        "trials": " 20 ",
        "workers": "2",
        "device": "cuda:1",
        "limit": "500",
    }
    form = Form(values=values | {"settings": "lr=0.1 epochs=3"}, arms=("a", "b"))
    expected = "mnist-suite sweep mnist --study my --trials 20 --limit 500 --workers 2 --device cuda:1"
    expected += " --set lr=0.1 --set epochs=3 --arms a,b --results /r"
    assert typed(form.words(Path("/r"))) == expected
    other = replace(form, values=values | {"experiment": "x y.py", "skip-broken": ON, "engine": "local"})
    assert typed(other.words(Path("/r"))).startswith("mnist-suite sweep 'x y.py' --study my")
    assert "--skip-broken" in other.words(Path("/r")) and "--engine" not in other.words(Path("/r"))
    of = replace(form, command="evaluate", values={"of": "my", "top": "2"})
    assert typed(of.words(Path("/r"))) == "mnist-suite evaluate my --top 2 --final --results /r"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_is_an_option_of_its_command(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"]).output
    names = [one.name for one in FIELDS[command]]
    assert len(set(names)) == len(names)
    for one in FIELDS[command]:
        assert not one.option or f"{one.option} " in said or f"{one.option}\n" in said, one
        if one.kind == "choice":
            assert one.default in one.choices


def test_a_field_of_one_name_is_the_same_in_every_command() -> None:
    kinds: dict[str, set[tuple[str, str]]] = {}
    for one in (field for fields in FIELDS.values() for field in fields):
        kinds.setdefault(one.name, set()).add((one.option, one.kind))
    assert all(len(kind) == 1 for kind in kinds.values())


@pytest.mark.parametrize("name", experiment_names())
def test_builtin_experiments_are_valid_in_the_form(name: str, tmp_path: Path) -> None:
    assert Form(values={"experiment": name, "study": "s"}).problems(tmp_path, load_experiment(name)) == {}


@pytest.mark.parametrize(
    "field, value",
    [
        ("study", ""),
        ("study", "../up"),
        ("study", "mnist"),
        ("trials", "0"),
        ("trials", "1"),
        ("trials", "²"),
        ("workers", "-1"),
        ("engine", "steam"),
        ("device", "tpu"),
        ("limit", "3"),
        ("seed", "1.5"),
        ("max-flops", "nan"),
        ("max-flops", "many"),
        ("settings", "lr"),
        ("settings", "'lr=1"),
    ],
)
def test_errors_are_reported_by_field(results: Path, field: str, value: str) -> None:
    form = Form(values={"experiment": "mnist", "study": "new", field: value})
    assert set(form.problems(results, load_experiment("mnist"))) == {field}


def test_errors_of_the_other_commands(results: Path) -> None:
    assert Form(values={"experiment": "x", "study": "new"}).problems(results, "none") == {"experiment": "none"}
    arms = Form(values={"experiment": "mnist", "study": "new"}, arms=("none",))
    assert set(arms.problems(results, load_experiment("mnist"))) == {"arms"}
    assert set(Form("finetune", {"from": "a", "pretrained": ON}).problems(results)) == {"base", "from"}
    assert set(Form("pretrain", {"name": "../x", "size": "1"}).problems(results)) == {"name", "size"}
    assert Form("evaluate", {"of": "mnist"}).problems(results) == {}
    assert set(Form("evaluate", {"of": "/"}).problems(results)) == {"of"}


@given(
    st.sampled_from(COMMANDS), st.dictionaries(st.sampled_from([f.name for c in FIELDS.values() for f in c]), st.text())
)
def test_whatever_is_typed_gives_words_and_problems(command: str, values: dict[str, str]) -> None:
    form = Form(command, values)
    assert form.words(Path("/r"))[0] == command
    assert all(form.problems(Path("/nowhere")).values())
    is_own_file(form.get("experiment"))


@given(st.lists(st.from_regex(r"[a-z.]+=[a-z0-9.]+", fullmatch=True), max_size=3))
def test_settings_are_separated_by_spaces(parts: list[str]) -> None:
    assert settings("  ".join(parts)) == parts


def test_a_clone_repeats_what_its_study_changed(results: Path) -> None:
    snapshot = Watcher(results, lambda: NOW).poll()
    form = new_form(results, snapshot.studies, "mnist")
    assert form.get("study") == "mnist-2" and form.get("trials") == "10" and form.get("workers") == "2"
    assert set(form.arms) == {"cnn", "head", "full"} and form.get("dataset") == ""
    assert new_form(results, snapshot.studies).get("study") == "mnist-2"
