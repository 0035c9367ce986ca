"""Arbitrary input to everything that reads: files of a study, the command line, experiment files, pictures."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from suite.cli.main import main
from suite.data.datasets import describe
from suite.data.pictures import stored_picture
from suite.errors import InputError
from suite.export.card import CARD, WEIGHTS, Card
from suite.export.predict import Predictor
from suite.models import backbones
from suite.ranking import leaderboard as ranking_leaderboard
from suite.spec import (
    UNHASHED,
    Arm,
    Cost,
    Evaluated,
    Experiment,
    Finished,
    Line,
    Preprocess,
    Progress,
    Provenance,
    Record,
    Started,
    Status,
    StudyFile,
    Trial,
)
from suite.store import repair
from suite.store.events import EventReader
from suite.store.files import read_model, write_model
from suite.store.study import StudyDir
from suite.training import checkpoint
from tests.fuzz_commands import fuzz, said

EXAMPLES = int(os.environ.get("MNIST_SUITE_SOAK", 60))
quick = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])


def genuine(make_trial: Callable[..., Trial]) -> dict[str, BaseModel]:
    """One of each file of a study."""
    experiment = Experiment(name="s", question="?", dataset="mnist", arms={"a": Arm(backbone="cnn")}, trials=3)
    trial = make_trial()
    return {
        "study.json": StudyFile(
            study="s", created=1.0, experiment=experiment, data_hash="d", split_hash="h", classes=("0", "1"),
            version="1", packages={},
        ),
        "status.json": Status(study="s", state="running", pid=1, host="h", started=1.0, heartbeat=2.0, planned=3),
        "trial.json": trial,
        "result.json": Record(
            trial=trial.id, arm="a", state="finished", attempt="x", accuracy=0.5, curve=((1, 0.25), (2, 0.5)), images=4,
            loss=1.0, epoch=2, steps=20, artifact="best.safetensors", artifact_sha256="0" * 64,
            cost=Cost(parameters=1, trainable=1, forward_flops=1, training_flops=1, wall_seconds=1.0, train_seconds=1.0,
                      setup_seconds=1.0, images_per_second=1.0, peak_memory_bytes=1, memory_source="m",
                      energy_joules=1.0, energy_source="e", latency_seconds=1.0, latency_256_seconds=1.0),
            provenance=Provenance(version="1", command="c", commit=None, python="3", packages={"torch": "1"}, host="h",
                                  hardware="w", threads=1, precision="fp32"),
        ),
    }  # fmt: skip


FILES = ["study.json", "status.json", "trial.json", "result.json", "events.jsonl"]
EVENTS = [
    Started(attempt="x", pid=1, host="h", steps=20),
    Progress(step=5, epoch=0.5, loss=1.0, lr=0.1, images_per_second=9.0, seconds=1.0),
    Evaluated(step=10, epoch=1, accuracy=0.25, loss=1.0, seconds=2.0),
    Evaluated(step=20, epoch=2, accuracy=0.5, loss=0.9, seconds=4.0),
    Finished(accuracy=0.5, step=20),
]
LINES = [Line(seq=i, time=float(i), event=event) for i, event in enumerate(EVENTS)]


def write_study(results: Path, make_trial: Callable[..., Trial], **changes: object) -> StudyDir:
    files = genuine(lambda: make_trial(**changes))
    directory = StudyDir(results, "s")
    place = directory.trial(make_trial(**changes).id)
    place.path.mkdir(parents=True)
    for name, model in files.items():
        write_model((directory.path if name in ("study.json", "status.json") else place.path) / name, model)
    place.events.write_text("".join(line.model_dump_json() + "\n" for line in LINES))
    return directory


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some damage: bytes changed, cut off, repeated, put in, or all of them replaced."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "replace"]))
    place, noise = draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=60))

    def apply(content: bytes) -> bytes:
        at = int(place * len(content))
        match kind:
            case "flip":
                return content[:at] + bytes(b ^ n for b, n in zip(content[at:], noise)) + content[at + len(noise) :]
            case "cut":
                return content[:at]
            case "insert":
                return content[:at] + noise + content[at:]
            case "repeat":
                return content + content[at:]
        return noise

    return apply


@quick
@given(name=st.sampled_from(FILES), how=mutations())
def test_readers_of_a_mutated_study_neither_crash_nor_invent(
    name: str,
    how: Callable[[bytes], bytes],
    make_trial: Callable[..., Trial],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = write_study(tmp_path_factory.mktemp("fuzz"), make_trial)
    path = next(directory.path.rglob(name))
    path.write_bytes(how(path.read_bytes()))
    study, status, states = directory.study(), directory.status(), directory.states()
    assert study is None or study.schema_version == 1
    assert status is None or status.state in ("running", "done", "stopped", "failed")
    assert len(states) <= 1  # nothing comes into being
    for state in states:
        row = ranking_leaderboard.row("s", state)
        assert row.accuracy is None or 0 <= row.accuracy <= 1
        assert state.state != "finished" or state.record is not None
    for trial in directory.trials():
        if name == "trial.json" and trial.trial() not in (None, make_trial()):
            # a changed figure that still parses: the directory's name gives it away
            unhashed = set(UNHASHED)
            changed, own = trial.trial(), make_trial()
            assert changed is not None
            assert not trial.sound() or changed.model_dump(exclude=unhashed) == own.model_dump(exclude=unhashed)
    found = repair.examine(directory)
    assert all(isinstance(f.what, str) for f in found)


@quick
@given(how=st.lists(mutations(), min_size=1, max_size=3))
def test_a_mutated_log_gives_whole_lines_only(
    how: list[Callable[[bytes], bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "events.jsonl"
    content = "".join(line.model_dump_json() + "\n" for line in LINES).encode()
    for one in how:
        content = one(content)
    path.write_bytes(content)
    reader = EventReader(path)
    lines = reader.poll()
    whole = [raw for raw in content[: content.rfind(b"\n") + 1].splitlines() if raw.strip()]
    assert len(lines) + reader.bad == len(whole)
    assert all(line.model_dump_json().encode() in whole or line in LINES or json.loads(raw) for line in lines
               for raw in whole if b'"seq":%d' % line.seq in raw)  # fmt: skip


@quick
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode), st.just(b"[" * 100_000)))
@pytest.mark.parametrize("kind", [StudyFile, Status, Trial, Record, Line])
def test_arbitrary_bytes_are_no_file_of_ours(
    kind: type[BaseModel], content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file"
    path.write_bytes(content)
    assert read_model(path, kind) is None


@quick
@given(how=mutations())
def test_a_mutated_checkpoint_is_whole_older_or_none(
    how: Callable[[bytes], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    import torch

    folder = tmp_path_factory.mktemp("fuzz")
    for step in (1, 2):
        checkpoint.save(folder, {"w": torch.full((3,), float(step))}, {"step": step})
    index = folder / checkpoint.INDEX
    index.write_bytes(how(index.read_bytes()))
    loaded = checkpoint.load(folder)
    if loaded is not None:
        tensors, numbers = loaded
        assert tensors["w"].tolist() == [float(numbers["step"])] * 3
        assert numbers in ({"step": 1}, {"step": 2})


# --- files that are whole, and strange ------------------------------------------------------------------------------

STRANGE: dict[type, list[Any]] = {
    int: [-1, 0, 2**31, 2**63, 10**400],
    float: [-1.0, -1e300, 5e-324, 1e308, float("nan"), float("inf")],
    str: ["", "x" * 3000, "\x1b[31mred", "[/b]", "\u202e", "../../etc/passwd", "/dev/zero", "a\nb", "<script>"],
    list: [[], [[]]],
    dict: [{}],
    type(None): [1, 10**400, 1e308, "\x1b[31m"],
}


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in a tree of JSON that can be replaced."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [leaf for key, value in inner for leaf in leaves(value, (*path, key))]


@st.composite
def replaced(draw: st.DrawFn, tree: Any) -> Any:
    """A tree in which one value is a strange one of the same type."""
    path = draw(st.sampled_from(leaves(tree)))
    changed = json.loads(json.dumps(tree))
    node = changed
    for key in path[:-1]:
        node = node[key]
    kind = int if isinstance(node[path[-1]], bool) else type(node[path[-1]])
    node[path[-1]] = draw(st.sampled_from(STRANGE[kind]))
    return changed


LOOKS = [["leaderboard", "s"], ["leaderboard", "s", "--csv"], ["leaderboard", "s", "--markdown"],
         ["leaderboard", "s", "--pareto", "--json"], ["status"], ["doctor", "s"],
         ["convert", "s", "--to", "tables"]]  # fmt: skip


@pytest.mark.slow
@quick
@given(drawn=st.data(), name=st.sampled_from(FILES), look=st.sampled_from(LOOKS))
def test_strange_values_in_a_study_are_shown_or_left_out(
    drawn: st.DataObject,
    name: str,
    look: list[str],
    make_trial: Callable[..., Trial],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No traceback, nothing that drives the terminal, and no path that is followed."""
    folder = tmp_path_factory.mktemp("fuzz")
    directory = write_study(folder / "results", make_trial, params={"lr": 0.1, "x": "y"})
    path = next(directory.path.rglob(name))
    if name == "events.jsonl":
        path.with_name("result.json").unlink()
        lines = [json.loads(line.model_dump_json()) for line in LINES]
        path.write_text("".join(json.dumps(line) + "\n" for line in drawn.draw(replaced(lines))))
    else:
        path.write_text(json.dumps(drawn.draw(replaced(json.loads(path.read_text())))))
    capfd.readouterr()
    code = run(look, folder, monkeypatch)
    out, errors = capfd.readouterr()
    assert code in (0, 1, 2), errors
    assert "Traceback" not in errors
    if "--json" not in look:
        assert "\x1b" not in out + errors
        assert "\u202e" not in out + errors


# --- the command line ----------------------------------------------------------------------------------------------


def run(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """In this process; whatever it is, it ends by SystemExit and no other way."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MNIST_SUITE_RESULTS", str(folder / "results"))
    monkeypatch.setattr(sys, "argv", ["mnist-suite", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


word = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40).map(lambda t: f"x{t}")
number = st.one_of(st.integers(-(10**30), 10**30), st.floats()).map(str)
value = st.one_of(word, number, st.just("x" * 300), st.just("../../etc"), st.just("[" * 5000), st.just("9" * 5000))
key = st.sampled_from(["lr", "epochs", "momentum", "augment.shift", "size", "strategy.head.k", "recipe", "space",
                       "backbone", "fraction", "nonsense"])  # fmt: skip
option = st.one_of(
    st.tuples(st.sampled_from(["--study", "--arms", "--engine", "--set"]), value),
    st.tuples(st.just("--set"), st.builds("{}={}".format, key, value)),
    st.tuples(
        st.sampled_from(["--trials", "--limit", "--seed", "--workers", "--trial-timeout", "--memory-limit"]), value
    ),
    st.tuples(st.sampled_from(["--backbone", "--strategy", "--head", "--size", "--fraction", "--precision"]), value),
)


TRAINING = [["sweep", "tutorial"], ["pretrain"], ["finetune", "--backbone", "cnn", "--strategy", "scratch"]]


@pytest.mark.slow
@quick
@given(command=st.sampled_from(TRAINING), options=st.lists(option, min_size=1, max_size=3))
def test_arbitrary_options_get_one_paragraph(
    command: list[str],
    options: list[tuple[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """--dry-run, so that what happens to be right is shown and not trained."""
    arguments = [*command, "--dry-run", "--json", *(text for pair in options for text in pair)]
    code = run(arguments, tmp_path_factory.mktemp("fuzz"), monkeypatch)
    out, errors = capfd.readouterr()
    assert code in (0, 2), errors
    assert "Traceback" not in errors
    if code == 2:
        assert out == ""
        assert "\x1b" not in errors
        assert len(errors) < 8000 or any(len(v) > 1000 for _, v in options)
    else:
        Experiment.model_validate_json(out)


@pytest.mark.slow
def test_command_lines_with_everything_hostile_end_as_documented() -> None:
    """Any command and option, odd environments, lost streams, signals. All of MNIST_SUITE_SOAK; else some seconds."""
    soak, seed = os.environ.get("MNIST_SUITE_SOAK"), int(os.environ["MNIST_SUITE_FAULT_SEED"])
    try:
        outcomes = [*fuzz(range(int(soak or 500)), seed, seconds=math.inf if soak else 4)]
    except PermissionError as error:
        pytest.skip(str(error))
    wrong = [said(outcome) for outcome in outcomes if outcome.kind]
    assert outcomes and not wrong, f"seed {seed}\n" + "\n".join(wrong[:20])


NAMED = [["export"], ["leaderboard"], ["stop"], ["status"], ["doctor"], ["evaluate", "--final"], ["rerun"], ["report"],
         ["gallery"], ["convert", "--to", "tables"], ["predict", "model"], ["data", "fetch"],
         ["data", "verify"]]  # fmt: skip


@quick
@given(command=st.sampled_from(NAMED), name=value)
def test_arbitrary_names_get_one_paragraph(
    command: list[str],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    code = run([*command, "--", name], folder, monkeypatch)
    errors = capfd.readouterr().err
    assert code == 2, errors
    assert errors.startswith("mnist-suite: ") or "Usage" in errors
    assert "Traceback" not in errors
    assert os.listdir(folder) == []  # nothing was made anywhere


@quick
@given(body=st.one_of(
    st.binary(max_size=80),
    st.sampled_from([
        b"import sys; sys.exit(0)", b"raise RuntimeError('a\\nb\\x1b[31mc')", b"def f(): f()\nf()", b"EXPERIMENT = 1",
        b"from suite.spec import *\nEXPERIMENT = Experiment(name='../x', question='?', dataset='mnist', arms={})",
        b"from suite.spec import *\nEXPERIMENT = Experiment(name='x', question='?', dataset='mnist',"
        b" arms={'a': Arm(backbone='cnn')}, space={'lr': LogFloat(low=1, high=float('inf'))})",
        b"raise KeyError", b"raise GeneratorExit", b"class X(BaseException): pass\nraise X('a')",
        b"assert False", b"1/0", b"(" * 500, b"#" * 100, "# \u2028".encode(), b"\xff\xfe",
    ]),
))  # fmt: skip
def test_arbitrary_experiment_files_get_one_paragraph(
    body: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "mine.py").write_bytes(body)
    code = run(["sweep", "./mine.py", "--dry-run"], folder, monkeypatch)
    errors = capfd.readouterr().err
    assert code == 2, errors
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
    assert "\x1b" not in errors


# --- pictures ---------------------------------------------------------------------------------------------------------


def card(channels: int) -> Card:
    return Card(
        backbone="cnn", dataset="mnist", classes=("0", "1"), preprocess=SEEN[channels], trial="s/t",
        strategy="scratch", accuracy=0.5, interval=(0.4, 0.6), images=10,
        sha256="x", timm=False, cost=None, provenance=None,
    )  # fmt: skip


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 40)).save(file, kind)
    return file.getvalue()


SEEN = {
    1: Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,), placement="centred"),
    3: Preprocess(channels=3, size=28, stored=28, mean=(0.1,) * 3, std=(0.3,) * 3),
}


@quick
@given(kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), how=st.lists(mutations(), max_size=3))
def test_mutated_pictures_are_read_or_refused(
    kind: str, how: list[Callable[[bytes], bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = encoded(kind)
    for one in how:
        content = one(content)
    path = tmp_path_factory.mktemp("fuzz") / "picture.png"
    path.write_bytes(content)
    for channels in (1, 3):
        try:
            assert stored_picture(path, SEEN[channels]).shape == (channels, 28, 28)
        except InputError as error:
            assert "picture.png" in str(error)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model, and a picture."""
    folder = tmp_path_factory.mktemp("exported")
    model = backbones.build("net", classes=2, channels=1, size=28, seed=0)
    digest = checkpoint.save_tensors(folder / WEIGHTS, model.state_dict())
    facts = card(1).model_copy(update={"backbone": "net", "sha256": digest})
    (folder / CARD).write_text(facts.model_dump_json())
    (folder / "picture.png").write_bytes(encoded("PNG"))
    return folder


@quick
@given(drawn=st.data())
def test_a_model_with_a_strange_card_is_used_or_refused(
    drawn: st.DataObject, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its author may have meant harm: no crash, no picture of a billion pixels, no figure that is none."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / WEIGHTS).symlink_to(exported / WEIGHTS)
    tree = json.loads((exported / CARD).read_text())
    head = drawn.draw(st.sampled_from([None, {"kind": "mlp", "hidden": 16}, {"kind": "knn", "k": 5}]))
    (folder / CARD).write_text(json.dumps(drawn.draw(replaced(tree | {"head": head}))))
    try:
        answer = Predictor(folder).file(exported / "picture.png")
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3


def test_only_plain_picture_formats_are_opened(tmp_path: Path) -> None:
    """Others bring interpreters along: PostScript is a language."""
    path = tmp_path / "a" / "picture.png"
    for folder in (path.parent, tmp_path / "b"):
        folder.mkdir()
        for number in range(4):
            Image.new("L", (20, 20), number).save(folder / f"{number}.png")
    Image.new("L", (20, 20)).save(path, "EPS")
    with pytest.raises(InputError, match="picture"):
        stored_picture(path, SEEN[1])
    with pytest.raises(InputError, match="picture"):
        describe(f"folder:{tmp_path}", skip_broken=False)
