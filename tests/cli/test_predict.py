"""The command `predict`: folders, patterns, failures beside answers, and JSON that any reader takes."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suite.cli import main
from suite.data.datasets import search_splits
from suite.export.card import CARD, WEIGHTS, Card
from suite.models import backbones
from suite.spec import Preprocess
from suite.training.checkpoint import save_tensors
from tests.conftest import Run

CLASSES = ("café", "thé", "猫")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of grey pictures with random weights: these tests are about files and not about accuracy."""
    folder = tmp_path_factory.mktemp("model")
    network = backbones.build("net", classes=3, channels=1, size=28, seed=0)
    with torch.no_grad():
        network.get_parameter("classifier.bias")[1] = 100.0  # every answer is thé
    card = Card(
        backbone="net", dataset="folder:/pictures", classes=CLASSES, trial="s/t", strategy="scratch", accuracy=0.5,
        preprocess=Preprocess(channels=1, size=28, stored=28, mean=(0.5,), std=(0.5,)), interval=(0.4, 0.6), images=10,
        sha256=save_tensors(folder / WEIGHTS, network.state_dict()), timm=False, cost=None, provenance=None,
    )  # fmt: skip
    (folder / CARD).write_text(card.model_dump_json())
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures in each class folder, one of them deeper, and what systems put beside them."""
    digits = search_splits("mnist", limit=20).validation.images[:6, 0]
    for i, digit in enumerate(digits):
        place = tmp_path / "pictures" / CLASSES[i // 2] / ("deep/er" if i % 2 else ".")
        place.mkdir(parents=True)
        Image.fromarray(digit).save(place / f"{i}.png")
    for name in (".hidden/0.png", "@eaDir/0.png", "notes.txt", ".DS_Store"):
        path = tmp_path / "pictures" / "thé" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "pictures" / "thé" / "2.png").read_bytes())
    return tmp_path / "pictures"


def test_folders_and_patterns_stand_for_their_pictures(run: Run, model: Path, pictures: Path) -> None:
    done = run("predict", model, pictures, "--json")
    assert done.code == 0, done.err
    answers = json.loads(done.out)
    assert [Path(answer["image"]).name for answer in answers] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    assert {answer["label"] for answer in answers} == {"thé"}
    assert "6 pictures in" in done.err and "images/s" in done.err
    assert "2 of 6 (33.33%)" in done.err
    assert "1 .txt" in done.err and "1 system folder (@eaDir)" in done.err
    for pattern in (f"{pictures}/*/*.png", f"{pictures}/**/[024].png"):
        assert len(json.loads(run("predict", model, pattern, "--json").out)) == 3
    one = run("predict", model, f"{pictures}/thé/2.png", "--top", 1)
    assert one.out == f"{pictures}/thé/2.png: thé   (thé 100.0%)\n" and one.err == ""
    assert run("predict", model, pictures, "-q").err == ""


def test_a_file_with_the_name_of_a_pattern_is_that_file(run: Run, model: Path, pictures: Path) -> None:
    odd = pictures / "[x]*.png"
    odd.write_bytes((pictures / "thé" / "2.png").read_bytes())
    assert [answer["image"] for answer in json.loads(run("predict", model, odd, "--json").out)] == [str(odd)]


def test_broken_pictures_stand_beside_the_answers(run: Run, model: Path, pictures: Path, tmp_path: Path) -> None:
    bad, gone, good = tmp_path / "bad.png", tmp_path / "gone.png", pictures / "thé" / "2.png"
    bad.touch()
    done = run("predict", model, good, bad, good, gone, "--json")
    assert done.code == 1
    answers = json.loads(done.out)
    assert [answer.get("label") for answer in answers] == ["thé", None, "thé", None]
    assert "bad.png" in answers[1]["error"] and "gone.png" in answers[3]["error"]
    assert "2 could not be used" in done.err
    text = run("predict", model, good, bad, "--show", tmp_path / "seen")
    assert text.code == 1 and "bad.png" in text.err and "bad.png" not in text.out
    assert len(text.out.splitlines()) == 1
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["0001-2.png"]
    none = run("predict", model, bad, gone, "--json")
    assert none.code == 2 and [set(answer) for answer in json.loads(none.out)] == [{"image", "error"}] * 2


def test_what_names_no_picture_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.heic").touch()
    for words, said in (
        ([model], "Name at least one picture"),
        ([model, tmp_path / "empty"], "no picture in the folder"),
        ([model, tmp_path / "notes"], "1 .heic (no decoder)"),
        ([model, f"{tmp_path}/*.png"], "No file matches"),
        ([model, "~nobody_here/x.png"], "does not exist"),
        ([tmp_path, tmp_path], "no exported model"),
        ([model, model / CARD, "--show", model], "--show DIR"),
    ):
        done = run("predict", *words)
        assert done.code == 2 and said in done.err and done.out == "", done


def test_sixteen_bit_pictures_have_one_rule(run: Run, model: Path, tmp_path: Path) -> None:
    """The value that training took for white is white in a prediction too, whatever the picture's own brightest is."""
    card = json.loads((model / CARD).read_text())
    card["preprocess"]["white"] = 4095.0
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / WEIGHTS).symlink_to(model / WEIGHTS)
    (folder / CARD).write_text(json.dumps(card))
    ramp = np.tile(np.linspace(0, 2047, 28).astype(np.uint16), (28, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    run("predict", folder, tmp_path / "ramp.png", "--show", tmp_path / "seen")
    (shown,) = (tmp_path / "seen").iterdir()
    assert np.asarray(Image.open(shown)).max() == 127


@pytest.mark.slow
def test_a_phone_picture_of_108_megapixels_is_read(run: Run, model: Path, tmp_path: Path) -> None:
    Image.new("L", (12000, 9000), 90).save(tmp_path / "large.jpg")
    assert run("predict", model, tmp_path / "large.jpg").code == 0


@given(text=st.text(st.characters(categories=["L", "N", "P", "S", "Cs"])))
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "gbk"])
def test_json_escapes_are_json(encoding: str, text: str) -> None:
    codecs.register_error("json_escapes", main._json_escapes)
    written = json.dumps([text], ensure_ascii=False).encode(encoding, "json_escapes").decode(encoding)
    assert json.dumps(json.loads(written)) == json.dumps(json.loads(json.dumps([text])))


@pytest.mark.slow
def test_json_is_json_where_the_output_is_ascii(model: Path, pictures: Path) -> None:
    """Names of classes, and of files that are no valid text."""
    odd = os.fsencode(pictures) + b"/\xff\xe9 \xf0\x9f\x98\xba.png"
    with open(odd, "wb") as file:
        file.write((pictures / "thé" / "2.png").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "suite.cli", "predict", model, odd, "--json"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    (answer,) = json.loads(done.stdout.decode("ascii"))
    assert answer["label"] == "thé" and set(answer["probabilities"]) == set(CLASSES)
    assert os.fsencode(answer["image"]) == odd


@pytest.mark.slow
def test_requests_of_any_size_are_served(model: Path) -> None:
    requests = [{"pixels": [[9] * side] * side} for side in (16, 28, 224)]
    wrong = ["nonsense", "[]", '{"pixels": [[1, 2]]}', '{"pixels": "x"}', '{"pixels": []}', '{"pixels": [[1e400]]}']
    lines = [*map(json.dumps, requests), *wrong, json.dumps(requests[1])]
    done = subprocess.run(
        [sys.executable, "-m", "suite.cli", "predict", str(model), "--serve"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    ready, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ready == {"ready": True, "classes": list(CLASSES), "size": 28, "dataset": "folder:/pictures"}
    assert [answer.get("label") for answer in answers[:3]] == ["thé"] * 3
    assert all(set(answer) == {"error"} for answer in answers[3:8])
    assert answers[-1] == answers[1] and len(answers) == len(lines)


@pytest.mark.slow
def test_a_server_without_requests_ends(model: Path) -> None:
    command = [sys.executable, "-m", "suite.cli", "predict", str(model), "--serve"]
    ended = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr
    assert json.loads(ended.stdout)["ready"]
