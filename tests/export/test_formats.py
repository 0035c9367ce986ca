"""ONNX, int8 and torch-export of trained models: they answer as the suite does, and the figures are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from suite.data.datasets import test_split as official_test
from suite.errors import InputError, WorkError
from suite.export import formats, publish
from suite.export.card import CARD, FILES, read_card
from suite.export.loading import load
from suite.export.predict import Predictor
from suite.models import onnx_runtime
from suite.models.preprocessing import evaluation_preparer
from suite.ranking.gains import board
from suite.ranking.leaderboard import EXPORTED, default_columns
from suite.store.exports import read_exports
from suite.store.files import file_sha256

if TYPE_CHECKING:
    from tests.conftest import Small

IMAGES = 1000  # of the test part


@pytest.fixture(scope="module")
def exported(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A trial of the small study in all formats, and what the work said it was doing."""
    folder, said = tmp_path_factory.mktemp("formats") / "model", []
    done = publish.export(small.results, "small", folder, ("onnx", "int8", "torch-export", "onnx"), said.append)
    assert "writing ONNX" in said and done["recorded"]
    return folder, done["trial"].partition("/")[2]


def test_every_format_answers_as_the_suite_does(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    card, images = read_card(folder), official_test("mnist").images[:IMAGES]
    labels = official_test("mnist").labels[:IMAGES]
    with torch.inference_mode():
        wanted = load(folder)(evaluation_preparer(card.preprocess, torch.device("cpu"))(torch.from_numpy(images)))
        pt2 = torch.export.load(folder / FILES["torch-export"]).module()(torch.from_numpy(images))
    session, name = onnx_runtime.logits_session(folder / FILES["onnx"])
    logits = onnx_runtime.runs(session, name, images, 250)
    assert np.abs(logits - wanted.numpy()).max() < 1e-4
    assert (logits.argmax(1) == wanted.argmax(1).numpy()).all()
    assert torch.allclose(pt2, wanted.softmax(1), atol=1e-5)
    int8 = onnx_runtime.runs(onnx_runtime.session(folder / FILES["int8"]), "probabilities", images, 250)
    right = [(values.argmax(1) == labels).mean() for values in (logits, int8)]
    assert abs(right[0] - right[1]) < 0.01


def test_a_predictor_runs_every_format(exported: tuple[Path, str], tmp_path: Path) -> None:
    """One by one and in batches; unasked it takes the trained model's own weights where they are there."""
    folder, _ = exported
    images = official_test("mnist").images[:40]
    wanted = Predictor(folder)
    assert wanted.runtime.format == "safetensors"
    for name in FILES:
        predictor = Predictor(folder, format=name, threads=1)
        answers = predictor.answers(images)
        for picture, answer, one in zip(images, answers, wanted.answers(images), strict=True):
            assert predictor.pixels(picture)["probabilities"] == pytest.approx(answer["probabilities"], abs=2e-6)
            if name != "int8":
                assert answer["label"] == one["label"]
                assert answer["probabilities"] == pytest.approx(one["probabilities"], abs=2e-5)
    for name in ("onnx", "torch-export"):
        alone = tmp_path / name
        alone.mkdir()
        (alone / CARD).symlink_to(folder / CARD)
        (alone / FILES[name]).symlink_to(folder / FILES[name])
        assert Predictor(alone).runtime.format == name
        with pytest.raises(InputError, match="runs on the CPU"):
            Predictor(alone, "cuda", name)
        (alone / FILES[name]).unlink()
        (alone / FILES[name]).write_bytes(b"damaged")
        with pytest.raises(InputError, match="SHA-256 differs"):
            Predictor(alone)
    for wrong, reason in (("gguf", "no format 'gguf'"), ("safetensors", r"holds no model\.safetensors")):
        with pytest.raises(InputError, match=reason):
            Predictor(alone, format=wrong)


def test_the_card_and_the_leaderboard_have_the_figures(exported: tuple[Path, str], small: Small) -> None:
    folder, trial = exported
    card = read_card(folder)
    assert set(card.formats) == set(FILES)
    for name, one in card.formats.items():
        path = folder / FILES[name]
        assert (one.file, one.bytes, one.sha256) == (path.name, path.stat().st_size, file_sha256(path))
        assert one.compared_on == "validation pictures" and one.images == card.images
        assert one.latency_seconds and one.latency_256_seconds and one.threads == torch.get_num_threads()
        if name != "int8":
            assert one.difference < 1e-4 and one.equal == 1 and one.accuracy == pytest.approx(card.accuracy_fp32)
    assert card.formats["int8"].calibration and card.formats["int8"].bytes < card.formats["onnx"].bytes / 2
    assert read_exports(small.study)[trial] == card.formats
    rows = board(small.study)
    row = next(row for row in rows if row.trial == trial)
    assert (row.int8, row.int8_size) == (card.formats["int8"].accuracy, card.formats["int8"].bytes)
    assert row.onnx_latency == card.formats["onnx"].latency_seconds
    assert set(EXPORTED) <= set(default_columns(rows))
    assert not set(EXPORTED) & set(default_columns([r for r in rows if r.trial != trial]))


def test_what_differs_is_not_published(
    small: Small, exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = read_card(exported[0])
    trained = formats.Compared(np.ones((2, 2)), "logits", lambda images: images, "torch")
    with pytest.raises(WorkError, match=r"model\.onnx.*differ by up to 0\.5"):
        formats._exact(card.formats["onnx"].model_copy(update={"difference": 0.5}), trained)

    monkeypatch.setattr(formats, "LARGEST_LOSS", -2.0)
    (tmp_path / FILES["onnx"]).write_bytes((exported[0] / FILES["onnx"]).read_bytes())
    trial = small.study.trial(exported[1]).trial()
    assert trial is not None
    given = formats.validation_examples(trial, card.preprocess)
    compared = formats._onnx(tmp_path / FILES["onnx"], given.images, 250)
    pictures = formats.calibration_pictures(trial, card.preprocess)
    with pytest.raises(WorkError, match="int8 was not published"):
        formats._int8(tmp_path, pictures, compared, given, card.preprocess, publish.silent)
    assert not (tmp_path / FILES["int8"]).exists()


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no format 'jpeg'.*safetensors, onnx, int8, torch-export"):
        publish.export(tmp_path / "none", "small", tmp_path / "model", ("onnx", "jpeg"))
    assert not (tmp_path / "model").exists()
