"""Paths that a user gives, to every option and argument of the command line that takes one."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from PIL import Image

from suite.cli.main import app, main
from suite.errors import expand_user
from suite.export.card import CARD, WEIGHTS, Card
from suite.models import backbones
from suite.reporting import report
from suite.reporting.document import Gallery, Section
from suite.spec import Preprocess
from suite.training.checkpoint import save_tensors

FIXTURE = Path(__file__).parents[1] / "fixtures" / "study-0.1" / "finished"

# What is given beside the option that is tried, so that a command comes as far as its path. A training would run.
BESIDE = {
    "pretrain": ["--device", "cuda:99"],
    "finetune": ["--backbone", "cnn", "--strategy", "scratch", "--device", "cuda:99"],
    "sweep": ["tutorial", "--device", "cuda:99"],
    "stop": ["small"],
    "note": ["small", "a note"],
    "trash": ["small"],
    "report": ["small", "--quiet"],
    "gallery": ["small", "--quiet"],
    "convert": ["small", "--to", "tables"],
    "evaluate": ["small"],
    "rerun": ["none"],
    "export": ["small"],
    "predict": ["model", "digit.png", "--quiet"],
    "explain": ["model", "digit.png", "--quiet", "--method", "saliency", "--nearest", "0"],
    "push": ["ann/digits", "--dry-run"],
    "data import": ["--as", "mnist"],
    "data sample": ["mnist", "--index", "0"],
}

# Text options that may hold a path, with a prefix.
TEXTS = {"dataset": "folder:", "source": "", "experiment": "./", "study": "./"}

HOSTILE = [
    "", " ", ".", "..", "/", "~", "~nobody_here/x", "~nobody_here/x.png", "a\0b.png", "x" * 300, "x" * 300 + ".html",
    "there.txt", "there.txt/below.html", "full", "full.png", "full.html", "pipe", "pipe.png", "pipe.html", "/dev/null",
    "/dev/full", "/proc/x.png", "/proc/x.md", "loop", "loop.png", "loop.html", "dangling/x.png", "-", "%s{0}?x=1#",
    "\udce9\x1b[31m", "nowhere/below/digit", "digit.pgn",
]  # fmt: skip


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in getattr(group, "commands", {"": group}).items():
        yield from [(name, group)] if not key else commands(one, f"{name} {key}".strip())


def parameters() -> list[tuple[str, Any]]:
    return [(name, param) for name, one in commands(typer.main.get_command(app)) for param in one.params]


def takes_path(param: Any) -> bool:
    annotation = param.type_descriptor.annotation
    return Path in (annotation, *get_args(annotation))


PATHS = [(name, param) for name, param in parameters() if takes_path(param)]


def test_every_path_is_read_by_one_function() -> None:
    assert len(PATHS) > 15
    for name, param in PATHS:
        parser = param.type_descriptor.parameter_info.parser
        assert isinstance(parser, partial) and parser.func is expand_user, (name, param.name)
    for name, param in parameters():
        told = f"{param.metavar or ''} {param.help or ''}"
        if param.type_descriptor.annotation is str and any(word in told for word in ("PATH", "a file", "a folder")):
            assert param.name in TEXTS, f"{name} {param.name} takes a path as text: try it here"


def command_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """In this process."""
    monkeypatch.setattr(sys, "argv", ["mnist-suite", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("exported")
    network = backbones.build("net", classes=2, channels=1, size=28, seed=0)
    card = Card(
        backbone="net", dataset="mnist", classes=("0", "1"), trial="s/t", strategy="scratch", accuracy=0.5,
        preprocess=Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,), placement="centred"),
        interval=(0.4, 0.6), images=10, sha256=save_tensors(folder / WEIGHTS, network.state_dict()), timm=False,
        cost=None, provenance=None,
    )  # fmt: skip
    (folder / CARD).write_text(card.model_dump_json())
    return folder


def furnish(folder: Path, model: Path) -> None:
    """What lies in a folder where commands run: a study, a model, a picture, and things that are in the way."""
    (folder / "results").symlink_to(FIXTURE)
    (folder / "model").symlink_to(model)
    Image.linear_gradient("L").resize((28, 28)).save(folder / "digit.png")
    (folder / "there.txt").write_text("mine")
    for name in ("full", "full.png", "full.html"):
        (folder / name).mkdir()
        (folder / name / "trials.txt").write_text("mine")
    for name in ("pipe", "pipe.png", "pipe.html"):
        os.mkfifo(folder / name)
    for name in ("loop", "loop.png", "loop.html"):
        (folder / name).symlink_to(name)
    (folder / "dangling").symlink_to("nothing")


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a folder, links and pipes as what they are."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink()
        else path.read_bytes() if path.is_file() else path.lstat().st_mode
        for path in folder.rglob("*")
    }  # fmt: skip


@pytest.fixture
def there(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_SUITE_RESULTS", raising=False)
    monkeypatch.setattr("tui.app.run", lambda *_: 0)  # the dashboard would take the terminal
    every = report.sections
    monkeypatch.setattr(report, "sections", lambda facts: shortest(every(facts)))  # drawing all takes seconds
    return tmp_path


def shortest(found: list[Section]) -> list[Section]:
    """The section with the fewest pictures, of those that have any."""
    pictures = {i: sum(len(b.pictures) for b in one.blocks if isinstance(b, Gallery)) for i, one in enumerate(found)}
    return [found[min((i for i in pictures if pictures[i]), key=lambda i: pictures[i])]]


TRIED = [pytest.param(name, param, id=f"{name} {param.name}".replace(" ", "-")) for name, param in PATHS]


def words_for(name: str, param: Any, value: str) -> list[str]:
    beside = BESIDE.get(name, [])
    if param.param_type_name == "argument":
        places = {"model": [value, "digit.png"], "images": ["model", value]}
        return [*name.split(), *places.get(param.name, [*beside, "--", value])]
    if param.opts[0] in beside:
        beside = [word for word in beside if word not in (param.opts[0], "tables")]
    return [*name.split(), *beside, param.opts[0], value]


def drawn(name: str, param: Any) -> list[str]:
    """Every third of the hostile paths, others for each parameter; all with MNIST_SUITE_SOAK. `doctor` gets fewer: it
    looks at the whole machine each time."""
    if name == "doctor":
        return HOSTILE[::6]
    place = next(i for i, (_, other) in enumerate(PATHS) if other is param)
    return HOSTILE if "MNIST_SUITE_SOAK" in os.environ else HOSTILE[place % 3 :: 3]


@pytest.mark.parametrize(("name", "param"), TRIED)
def test_no_path_gives_a_traceback_or_loses_a_file(
    name: str, param: Any, there: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(there)
    for value in drawn(name, param):
        if value in ("/", "..", "~") and param.name in ("images", "path"):
            continue  # all pictures and data sets of this machine
        code = command_line(words_for(name, param, value), monkeypatch)
        errors = capfd.readouterr().err
        assert code in (0, 1, 2), (value, errors)
        assert "Traceback" not in errors and "\x1b" not in errors
        if code:
            assert errors.startswith(("mnist-suite: ", "Usage")) or "\nmnist-suite: " in errors, (value, errors)
            assert code == 2 or param.opts[0] not in ("--to", "--show", "--results"), (value, errors)
        after = contents(there)
        assert {key: after.get(key) for key in before} == before, value
        assert not list(there.glob("~*")) and not list(there.glob(".*.tmp")), value


@pytest.mark.parametrize("param", TEXTS)
@pytest.mark.parametrize("value", ["~nobody_here/x.py", "", "a\0b.py", "x" * 5000 + ".py", "pipe", "/dev/null", "loop"])
def test_paths_within_a_text(
    param: str, value: str, there: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = TEXTS[param] + value if not value.startswith(("~", "/")) or param == "dataset" else value
    words = {
        "dataset": ["pretrain", "--device", "cuda:99", "--dataset", given],
        "source": ["finetune", "--backbone", "cnn", "--from", given],
        "experiment": ["sweep", given],
        "study": ["evaluate", given, "--shift"],
    }
    assert command_line(words[param], monkeypatch) == 2
    errors = capfd.readouterr().err
    assert "Traceback" not in errors and "mnist-suite: " in errors


# --- what is written ---

WRITTEN = [
    (["data", "sample", "mnist", "--index", "0", "--to"], "digit-0.png"),
    (["report", "small", "-q", "--to"], "report.html"),
    (["report", "small", "-q", "--to"], "report.md"),
    (["convert", "small", "--to"], "tables"),
    (["gallery", "small", "-q", "--to"], "pages"),
    (["export", "small", "--to"], "exported"),
    (["predict", "model", "digit.png", "-q", "--show"], "seen"),
    (["explain", "model", "digit.png", "-q", "--method", "saliency", "--nearest", "0", "--to"], "maps"),
]
IDS = [Path(to).name for _, to in WRITTEN]


def test_every_option_that_writes_is_tried() -> None:
    others = ("--results", "--quote", *"mip")  # a document that is quoted in has to be there
    options = {(name, param.opts[0]) for name, param in PATHS if param.opts[0] not in others}
    outputs = {(name, option) for name, option in options if option.startswith("--")}
    assert outputs == {(" ".join(words[: 1 + (words[0] == "data")]), words[-1]) for words, _ in WRITTEN}


@pytest.mark.parametrize(("words", "to"), WRITTEN, ids=IDS)
def test_results_are_written_where_the_user_says(
    words: list[str], to: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In folders that are missing, below the home directory, through a link, and with the rights of the umask."""
    monkeypatch.setenv("HOME", str(there / "home"))
    (there / "home").mkdir()
    (there / "deep").mkdir()
    (there / "home" / "link").symlink_to(there / "deep")
    mask = os.umask(0o027)
    try:
        assert command_line([*words, f"~/link/new/{to}"], monkeypatch) == 0
    finally:
        os.umask(mask)
    assert not (there / "~").exists()
    made = [there / "deep" / "new" / to, *(there / "deep" / "new").rglob("*")]
    assert all(path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640) for path in made)


@pytest.mark.parametrize(("words", "to"), WRITTEN[:3], ids=IDS[:3])
def test_a_link_to_a_file_stays_a_link(words: list[str], to: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there / "deep").mkdir()
    (there / to).symlink_to(f"deep/{to}")
    assert command_line([*words, to], monkeypatch) == 0
    assert (there / to).is_symlink() and (there / "deep" / to).is_file()


def mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


@pytest.fixture
def tiny(there: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = there / "tiny"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", place):
        pytest.skip("cannot mount a file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.parametrize(("words", "to"), WRITTEN, ids=IDS)
def test_a_full_and_a_read_only_disk(
    words: list[str], to: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if Path(to).suffix:
        (tiny / to).write_text("the one before")
    with open(tiny / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    before = contents(tiny)
    assert command_line([*words, str(tiny / to)], monkeypatch) == 1
    errors = capfd.readouterr().err
    assert "No space left on device" in errors and Path(to).stem in errors and "Traceback" not in errors
    kept = contents(tiny)
    assert {key: kept.get(key) for key in before} == before
    assert not list(tiny.rglob(".*"))
    (tiny / "filler").unlink()
    assert mount("-o", "remount,ro", tiny)
    before = contents(tiny)
    assert command_line([*words, str(tiny / to)], monkeypatch) == 2
    errors = capfd.readouterr().err
    assert "cannot be written" in errors and to in errors and words[-1] in errors
    assert contents(tiny) == before


# --- without a home directory ---

ONE_AFTER_THE_OTHER = """
import contextlib, io, json, os, sys
from suite.cli.main import main
for words, changes in json.loads(sys.argv[1]):
    os.environ.update(changes)
    sys.argv = ["mnist-suite", *words]
    out, err = io.StringIO(), io.StringIO()
    from suite.cli import console
    console.out.file, console.err.file = out, err
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def as_stranger(folder: Path, *lines: tuple[list[str], dict[str, str]]) -> list[tuple[int, str, str]]:
    """Run command lines in one process of a user without home and without an entry in the password database.

    It may read everything, as the interpreter may lie in the home directory of another user.
    """
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("takes root and setpriv")
    os.chown(folder, 54321, 0)
    words = ["setpriv", "--reuid=54321", "--clear-groups", "--inh-caps=+dac_read_search"]
    words += ["--ambient-caps=+dac_read_search", "env", "-u", "HOME", "-u", "MNIST_SUITE_CACHE", "-u", "XDG_CACHE_HOME"]
    command = [*words, sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(lines)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    if "setpriv:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]  # type: ignore[misc]


def test_without_a_home_the_variable_is_named(tmp_path: Path) -> None:
    lines = (["data", "list", "--json"], ["data", "sample"], ["data", "cache"], ["status", "--results", "~/r"])
    *looks, status = as_stranger(tmp_path, *((words, {}) for words in lines))
    for code, out, errors in looks:
        assert code == 2 and out == "" and "MNIST_SUITE_CACHE" in errors and errors.count("\n") == 1
    assert status[0] == 2 and "HOME is not set" in status[2]
    assert list(tmp_path.iterdir()) == []


QUICK = ["--limit", "300", "--set", "epochs=1", "--set", "batch_size=32", "--backbone", "net", "-q"]


@pytest.mark.slow
def test_without_a_home_and_with_a_cache_that_others_own(tmp_path: Path) -> None:
    from suite.store.files import cache_dir

    place = {"MNIST_SUITE_CACHE": str(cache_dir())}
    lines = [
        ["data", "list", "--json"],
        ["doctor"],
        ["pretrain", *QUICK, "--study", "base"],
        ["finetune", *QUICK, "--from", "base", "--strategy", "head", "--study", "head"],
        ["report", "base", "-q", "--to", "r.html"],
        ["export", "base", "--to", "model"],
        ["export", "base", "--to", "/not-here"],
        ["data", "import", "/root"],
    ]
    *good, refused, _ = as_stranger(tmp_path, *((words, place) for words in lines))
    for words, (code, _, errors) in zip(lines, good, strict=False):
        assert code == 0, (words, errors)
        assert "temporary cache directory" not in errors  # matplotlib's
    assert refused[0] == 2 and "cannot be written" in refused[2]


# --- JSON ---


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp932", "utf-8", "utf-16"])
@pytest.mark.parametrize("name", ["café", "猫", "café \udce9"])
def test_json_is_json_in_every_encoding(
    encoding: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / name))
    for i in range(24 if name.isprintable() else 0):
        path = tmp_path / "pictures" / name / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), i).save(path)
    dataset = f"folder:{tmp_path / 'pictures' / name}"
    looks: list[tuple[list[str], Callable[[Any], str]]] = [
        (["data", "cache", "--json"], lambda found: found["folder"]),
        (
            ["sweep", "tutorial", "--dataset", dataset, "--set", "batch_size=4", "--dry-run", "--json"],
            lambda found: found["dataset"],
        ),
    ]
    for words, read in looks[: 1 if name.isprintable() is False else 2]:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        assert command_line(words, monkeypatch) == 0
        sys.stdout.flush()
        text = raw.getvalue().decode("utf-16" if encoding == "utf-16" else "utf-8")
        assert read(json.loads(text)).endswith(f"/{name}")
