"""The command line as people meet it: light, clear about mistakes, and right from one end to the other."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image, ImageOps
from typer.testing import CliRunner

from suite.cli.main import app, main
from suite.data.datasets import search_splits
from suite.export.card import read_card
from suite.export.loading import load
from suite.store.events import EventReader
from suite.store.study import StudyDir

Suite = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Any]
FIXTURE = Path(__file__).parents[1] / "fixtures" / "study-0.1" / "finished"
COMMANDS = [
    "",
    "data",
    "pretrain",
    "finetune",
    "sweep",
    "stop",
    "status",
    "leaderboard",
    "export",
    "predict",
    "serve",
    "doctor",
]
QUICK = ("--limit", "300", "--set", "epochs=2", "--set", "batch_size=32", "--quiet")


IN_ONE_PROCESS = """
import sys
from suite.cli.main import app
for command in sys.argv[1:]:
    print("---")
    try:
        app(command.split())
    except SystemExit as end:
        assert end.code in (0, None), (command, end.code)
    heavy = {"torch", "optuna", "timm", "textual", "sklearn", "torchvision"} & set(sys.modules)
    assert not heavy, (command, heavy)
"""


def test_help_loads_nothing_heavy() -> None:
    words = [f"{command} --help" for command in COMMANDS]
    done = subprocess.run([sys.executable, "-c", IN_ONE_PROCESS, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command, text in zip(COMMANDS, done.stdout.split("---\n")[1:], strict=True):
        assert "Usage" in text, command
        assert "Example" in text or command in ("", "data"), command


@pytest.mark.parametrize("group", [[], ["data"]])
def test_no_summary_of_a_command_is_cut(group: list[str]) -> None:
    listing = CliRunner().invoke(app, [*group, "--help"], terminal_width=80).output
    assert "..." not in listing.partition("Commands:")[2]
    plain = " ".join(listing.split())
    known = app if not group else next(one.typer_instance for one in app.registered_groups if one.name == "data")
    assert known is not None
    for one in known.registered_commands:
        summary = " ".join(str(getattr(one.callback, "__doc__", "")).split("\n\n")[0].split())
        assert summary.partition(". ")[0].rstrip(".") in plain


def test_looking_at_results_needs_no_torch(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "results")
    words = ["status", "leaderboard", "data list"]
    done = subprocess.run([sys.executable, "-c", IN_ONE_PROCESS, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    status, leaderboard, datasets = done.stdout.split("---\n")[1:]
    assert "small: done" in status and "11 trials" in leaderboard and "mnist" in datasets


BAD = [
    (["sweep", "nonsense"], "built in are"),
    (["sweep", "--trials", "0"], "trials"),
    (["sweep", "--trials", "many"], "trials"),
    (["sweep", "./none.py"], "no experiment file"),
    (["sweep", "--arms", "wings"], "cnn-scratch"),
    (["sweep", "--study", "../up"], "cannot be used"),
    (["sweep", "--device", "quantum"], "auto, cpu, cuda"),
    (["sweep", "--device", "cuda:99"], "CUDA devices"),
    (["sweep", "--engine", "warp"], "local, ray"),
    (["sweep", "--engine", "ray", "--population", "2"], "--engine"),
    (["sweep", "--engine", "ray", "--device", "cuda:1"], "auto, cpu or cuda"),
    (["sweep", "--set", "lr"], "key=value"),
    (["sweep", "--set", "nothing=1"], "there is no 'nothing'"),
    (["sweep", "--set", "momentum=2"], "momentum"),
    (["sweep", "--storage", "oracle://me:secret@host/db"], "--storage"),
    (["pretrain", "--backbone", "cmn"], "cnn"),
    (["pretrain", "--backbone", "timm:resnet81"], "timm:resnet"),
    (["pretrain", "--backbone", "lean-zz", "--dry-run"], "lean-s"),
    (["sweep", "--set", "backbone=lean-zz", "--dry-run"], "lean-s"),
    (["finetune", "--backbone", "timm:tf_efficientnet_b0_ns", "--strategy", "head"], "tf_efficientnet_b0.ns_jft_in1k"),
    (["pretrain", "--backbone", "timm:vit_base_patch16_224_in21k", "--dry-run"], "timm:vit_base_patch16_224.augreg"),
    (["pretrain", "--backbone", "timm:test_resnet", "--limit", "60", "--set", "batch_size=1"], "batches of one image"),
    (["pretrain", "--dataset", "nmist"], "mnist"),
    (["pretrain", "--set", "batch_size=100000000"], "batch_size"),
    (["pretrain", "--fraction", "0"], "fraction"),
    (["pretrain", "--precision", "fp9"], "precision"),
    (["pretrain", "--limit", "30"], "batches"),
    (["finetune", "--backbone", "cnn"], "--from"),
    (["finetune", "--backbone", "cnn", "--from", "nowhere"], "nowhere"),
    (["finetune", "--backbone", "cnn", "--from", "/dev/zero"], "no plain file"),
    (["finetune", "--backbone", "cnn", "--from", __file__], "no file of weights"),
    (["finetune", "--backbone", "timm:resnet18", "--strategy", "magic"], "strategy"),
    (["finetune", "--backbone", "timm:resnet18", "--pretrained"], "No pretrained weights for timm:resnet18"),
    (["leaderboard"], "no studies"),
    (["leaderboard", "none"], "no study 'none'"),
    (["leaderboard", "--sort", "beauty"], "no studies"),
    (["export", "--to", "m"], "no studies"),
    (["predict", "nowhere", "x.png"], "no exported model"),
    (["stop", "none"], "no study"),
    (["evaluate", "none", "--shift"], "no study 'none'"),
    (["evaluate", "./none", "--shift"], "no exported model"),
    (["evaluate", "none", "--shift", "--final"], "--final and --shift"),
    (["evaluate", "none", "--test"], "go with --shift"),
    (["evaluate", "none", "--tta", "shift"], "go with --final"),
    (["evaluate", "none", "--shift", "--ensemble", "a,b"], "go with --final"),
    (["evaluate", "none", "--final", "--limit", "50"], "go with --shift"),
    (["evaluate", "none", "--shift", "--test", "--limit", "50"], "all test images"),
    (["data", "fetch", "nmist"], "mnist"),
    (["data", "import", "/nowhere", "--as", "mnist"], "no folder"),
    (["bogus"], "bogus"),
]


@pytest.mark.parametrize(("arguments", "word"), BAD, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "")
def test_bad_input_gets_one_paragraph_and_exit_code_2(
    tmp_path: Path,
    arguments: list[str],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process, since thirty-odd fresh ones would spend their time importing torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_SUITE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(sys, "argv", ["mnist-suite", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, errors = capfd.readouterr()
    assert end.value.code == 2, errors
    assert word in errors
    assert "secret" not in errors
    assert out == ""
    assert not list((tmp_path / "results").glob("*/study.json"))


@pytest.mark.slow
def test_an_unwritable_results_directory(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = suite("pretrain", *QUICK, "--results", tmp_path / "file" / "results")
    assert done.returncode == 2
    assert "Cannot write" in done.stderr


@pytest.mark.slow
def test_without_standard_streams_nothing_is_written_into_other_files(suite: Suite, tmp_path: Path) -> None:
    """Started as a daemon may be, the first files opened would get the numbers of the missing streams."""
    code = (
        "import os, sys\nfor number in range(3): os.close(number)\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'suite.cli', *sys.argv[1:]])"
    )
    results = tmp_path / "results"
    arguments = ["pretrain", "--backbone", "net", "--study", "one", *QUICK[:-1], "--results", str(results)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path)
    assert done.returncode == 0
    directory = StudyDir(results, "one")
    assert [s.state for s in directory.states()] == ["finished"]
    assert EventReader(directory.trials()[0].events).bad == 0
    look = suite("doctor", "one")
    assert look.returncode == 0, look.stdout
    assert subprocess.run([sys.executable, "-c", code, "status", "--results", str(results)]).returncode == 0


def test_square_brackets_are_text(suite: Suite, tmp_path: Path) -> None:
    place = tmp_path / "a[/b]" / "[red]"
    done = suite("status", "--results", place)
    assert done.returncode == 0, done.stderr
    assert str(place) in done.stdout


@pytest.mark.slow
def test_a_wrong_setting_is_found_before_anything_runs(suite: Suite, tmp_path: Path) -> None:
    done = suite("pretrain", *QUICK, MNIST_SUITE_CHECKPOINT_SECONDS="soon")
    assert done.returncode == 2
    assert "no number of seconds" in done.stderr
    assert not list((tmp_path / "results").glob("*/study.json"))


def test_a_network_disk_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "self").mkdir()
    # what the kernel says of mounts, as it would be there
    (tmp_path / "self/mounts").write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    words = ["pretrain", "--device", "cuda:99", "--results", str(tmp_path / "results")]  # ends before it trains
    monkeypatch.setattr(sys, "argv", ["mnist-suite", *words])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capfd.readouterr().err
    assert end.value.code == 2
    assert "is on a network disk (nfs4)" in errors
    assert "--storage postgresql" in errors


def test_an_experiment_file_that_breaks(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('mine broke')")
    (tmp_path / "other.py").write_text("x = 1")
    (tmp_path / "third.py").write_text("def (")
    for name, word in (("mine", "mine broke"), ("other", "EXPERIMENT"), ("third", "SyntaxError")):
        done = suite("sweep", f"./{name}.py")
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_from_pretraining_to_a_prediction(suite: Suite, tmp_path: Path) -> None:
    """pretrain -> finetune by every own-weights strategy -> leaderboard -> export -> predict."""
    made = suite("pretrain", "--study", "base", *QUICK, "--set", "lr=0.003", "--json")
    assert made.returncode == 0, made.stderr
    base = json.loads(made.stdout)
    assert base["accuracy"] > 0.4
    assert base["params"] == base["trainable"] == 421_642
    again = suite("pretrain", "--study", "base", *QUICK, "--set", "lr=0.003", "--json")
    assert json.loads(again.stdout) == base | {"repeated": True}  # asking twice does the work once

    for strategy in ("head", "lp-ft"):
        tuned = suite(
            "finetune", "--backbone", "cnn", "--dataset", "fashion-mnist", "--strategy", strategy,
            "--from", "base", *QUICK, "--study", f"tuned-{strategy}", "--json",
        )  # fmt: skip
        assert tuned.returncode == 0, tuned.stderr
        row = json.loads(tuned.stdout)
        assert row["accuracy"] > 0.4
        assert (row["trainable"] < row["params"]) == (strategy != "lp-ft")
        state = StudyDir(tmp_path / "results", f"tuned-{strategy}").states()[0]
        assert state.trial.weights is not None
        assert state.trial.weights.source.startswith("base/trials/")
        assert state.record and state.record.provenance
        assert state.record.provenance.weights_sha256 == state.trial.weights.sha256

    table = suite("leaderboard", "--csv")
    assert len(list(csv.DictReader(io.StringIO(table.stdout)))) == 3
    rows = json.loads(suite("leaderboard", "--json", "--sort", "trainable").stdout)
    assert [r["trainable"] for r in rows] == sorted(r["trainable"] for r in rows)
    assert suite("leaderboard", "--markdown", "--top", "1").stdout.count("| finished |") == 2  # of each data set
    assert "3 finished" in suite("leaderboard").stdout
    statuses = json.loads(suite("status", "--json").stdout)
    assert {s["state"] for s in statuses} == {"done"}

    refused = suite("finetune", "--backbone", "cnn", "--from", "tuned-head", *QUICK)
    assert refused.returncode == 2
    assert "no whole model" in refused.stderr
    best = StudyDir(tmp_path / "results", "base").trials()[0].best
    before = sorted(path.name for path in (tmp_path / "results").iterdir())
    other = suite("finetune", "--backbone", "net", "--from", best, *QUICK)
    assert other.returncode == 2
    assert "are not for net" in other.stderr
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == before

    for study in ("base", "tuned-head"):
        out = suite("export", study, "--to", f"models/{study}", "--json")
        assert out.returncode == 0, out.stderr
    assert suite("export", "base", "--to", "models/base").returncode == 2
    for name in ("x" * 300, "x" * 250, "models/base/model.safetensors/below"):
        refused = suite("export", "base", "--to", name)
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr
    odd = suite("export", "base", "--to", "a\x1b[31mb\nü")
    assert odd.returncode == 0, odd.stderr
    assert "\x1b" not in odd.stdout
    assert read_card(tmp_path / "a\x1b[31mb\nü").backbone == "cnn"
    model = load(tmp_path / "models" / "base")
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert oct((tmp_path / "models/base/model.safetensors").stat().st_mode)[-3:] == "644"


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory: pytest.TempPathFactory, starter: Start) -> Path:
    """A decent model of digits, exported."""
    folder = tmp_path_factory.mktemp("model")
    for words in (
        ["pretrain", "--study", "digits", "--backbone", "lean-s", "--fraction", "0.2", "--set", "epochs=3", "-q"],
        ["export", "digits", "--to", folder / "model"],
    ):
        made = starter(*words, MNIST_SUITE_RESULTS=str(folder / "results"))
        assert made.wait() == 0, made.errors
    return folder / "model"


@pytest.mark.slow
def test_pictures_of_every_kind_are_predicted_alike(digits_model: Path, suite: Suite, tmp_path: Path) -> None:
    """Real validation digits as a person would send them: dark on light, large, coloured, off centre, transparent."""
    splits = search_splits("mnist", limit=40)
    right: dict[str, int] = {}
    names: list[tuple[str, str, str]] = []
    for number in range(20):
        digit = Image.fromarray(splits.validation.images[number, 0])
        label = str(splits.validation.labels[number])
        large = ImageOps.invert(digit.resize((280, 280), Image.Resampling.BICUBIC))
        page = Image.new("L", (400, 500), 255)
        page.paste(large, (90, 30))
        red = ImageOps.colorize(digit.resize((100, 100)), black="white", white="darkred")
        clear = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
        clear.putalpha(digit)
        for kind, image, suffix in (
            ("plain", digit, "png"),
            ("inverted", ImageOps.invert(digit), "png"),
            ("page", page, "jpg"),
            ("red", red, "png"),
            ("clear", clear.resize((64, 64)), "png"),
        ):
            path = tmp_path / f"{kind}-{number}.{suffix}"
            image.save(path)
            names.append((kind, label, str(path)))
    done = suite("predict", digits_model, *(path for _, _, path in names), "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for (kind, label, _), answer in zip(names, answers, strict=True):
        right[kind] = right.get(kind, 0) + (answer["label"] == label)
        assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3
    assert right["plain"] >= 18
    assert all(count >= 17 for count in right.values()), right


@pytest.mark.slow
def test_pictures_that_are_none(digits_model: Path, suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    whole = io.BytesIO()
    Image.new("L", (100, 100)).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:60])
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("text.png", "empty.png", "cut.png", "bomb.png", "missing.png", "pipe.png"):
        done = suite("predict", digits_model, name)
        assert done.returncode == 2, name
        assert name in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_tampered_export_is_refused(digits_model: Path, suite: Suite, tmp_path: Path) -> None:
    for damage in ("weights", "card"):
        folder = tmp_path / damage
        shutil.copytree(digits_model, folder)
        target = folder / ("model.safetensors" if damage == "weights" else "mnist-suite.json")
        content = bytearray(target.read_bytes())
        content[-20] ^= 1
        target.write_bytes(content if damage == "weights" else content[:-30])
        Image.new("L", (28, 28)).save(tmp_path / "x.png")
        done = suite("predict", folder, "x.png")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_serve_answers_lines_and_survives_nonsense(digits_model: Path, suite: Suite, tmp_path: Path) -> None:
    pixels = search_splits("mnist", limit=40).validation.images[0, 0].tolist()
    lines = [json.dumps({"pixels": pixels}), "nonsense", json.dumps({"pixels": [[1]]}), json.dumps({"pixels": pixels})]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    done = suite("predict", digits_model, "--serve", timeout=60, stdin=tmp_path / "lines")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["ready"]
    assert answers[1] == answers[4]
    assert "error" in answers[2]
    assert "error" in answers[3]


@pytest.mark.slow
def test_doctor_and_samples(suite: Suite, tmp_path: Path) -> None:
    report = json.loads(suite("doctor", "--json").stdout)
    assert report["data"]["mnist"] == "here"
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0]
    drawn = suite("data", "sample", "mnist", "--index", "3").stdout
    assert len(drawn.splitlines()) == 29
    sample = json.loads(suite("data", "sample", "mnist", "--index", "3", "--json").stdout)
    assert drawn.strip().endswith(sample["label"])
    suite("data", "sample", "mnist", "--index", "3", "--to", "three.png")
    assert Image.open(tmp_path / "three.png").size == (28, 28)


@pytest.mark.slow
def test_watch_shows_the_leaderboard_until_interrupted(start: Start) -> None:
    watching = start("leaderboard", "small", "--watch", "--results", FIXTURE)
    while "scratch" not in watching.output:
        assert watching.poll() is None
        time.sleep(0.01)
    watching.signal(signal.SIGINT)
    assert watching.wait(60) == 130
    assert "Traceback" not in watching.errors
