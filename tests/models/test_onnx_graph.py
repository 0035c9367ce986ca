"""The form of a model that runtimes fuse, its ONNX graph, and the graph in 8 bits, on real digits."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suite.data.datasets import info, search_splits
from suite.errors import InputError
from suite.models import onnx_graph, onnx_runtime, quantize
from suite.models.backbones import SmallCNN, Stage
from suite.models.preprocessing import evaluation_preparer, preprocess
from suite.spec import Preprocess


def network(seed: int, gains: list[float], size: int = 20) -> SmallCNN:
    """Two stages with batch norm, whose statistics are not those of a new one."""
    torch.manual_seed(seed)
    model = SmallCNN(10, 1, size, stages=[(6, 3, 1), (8, 3, 1)], hidden=16, norm=True).eval()
    for stage in model.stages:
        assert isinstance(stage, Stage) and isinstance(stage.norm, nn.BatchNorm2d)
        norm = stage.norm
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.2, 2.0)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.weight.data = torch.tensor(gains[: len(norm.weight)])
    return model


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.floats(-2, 2, width=32), min_size=8, max_size=8))
def test_a_folded_model_computes_the_same_and_the_given_one_stays(seed: int, gains: list[float]) -> None:
    """Also where a gain is negative or zero, so that norm and max pooling do not commute."""
    model = network(seed, gains)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = onnx_graph.inference_form(model)
    images = torch.randn(3, 1, 20, 20)
    with torch.inference_mode():
        assert torch.allclose(folded(images), model(images), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    left = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert left == sum(min(gains[:width]) < 0 for width in (6, 8))


@dataclass(frozen=True)
class Written:
    model: nn.Module
    expects: Preprocess
    path: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A model whose input is smaller than the stored pictures, as an ONNX file."""
    model = network(0, [1.0, 0.5, 0.2, 1.5, 2.0, 0.8, 1.0, 1.0])
    expects = preprocess("cnn", info("mnist"), size=20)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx_graph.write_onnx(path, onnx_graph.traced(model, expects))
    return Written(model, expects, path)


@torch.inference_mode()
def logits(given: Written, images: np.ndarray) -> np.ndarray:
    return given.model(evaluation_preparer(given.expects, torch.device("cpu"))(torch.from_numpy(images))).numpy()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_graph_takes_stored_pictures_in_batches_of_any_size(written: Written, count: int) -> None:
    images = search_splits("mnist", limit=100).validation.images[:count]
    session, name = onnx_runtime.logits_session(written.path, threads=1)
    wanted = logits(written, images)
    assert np.abs(session.run([name], {"images": images})[0] - wanted).max() < 1e-4
    scores = onnx_runtime.session(written.path).run(["probabilities"], {"images": images})[0]
    assert scores.dtype == np.float32 and scores.shape == (count, 10)
    assert np.allclose(scores, torch.from_numpy(wanted).softmax(1), atol=1e-5)


def test_the_file_is_fused_and_names_nothing_of_this_machine(written: Written) -> None:
    model = onnx.load(written.path)
    kinds = [node.op_type for node in model.graph.node]
    first = kinds.index("Conv")
    assert kinds[first : first + 3] == ["Conv", "Relu", "MaxPool"] and "BatchNormalization" not in kinds
    assert model.opset_import[0].version <= 21
    assert str(Path(__file__).parents[2]).encode() not in written.path.read_bytes()


def test_int8_keeps_the_answers_and_takes_a_third_of_the_bytes(written: Written, tmp_path: Path) -> None:
    splits = search_splits("mnist", limit=200)
    found = next(quantize.quantized(written.path, tmp_path, splits.train.images[:64]))
    assert "minmax" in found.calibration and "64 training pictures" in found.calibration
    session, name = onnx_runtime.logits_session(found.path, threads=1)
    wanted = logits(written, splits.validation.images)
    values = onnx_runtime.runs(session, name, splits.validation.images, 50)
    assert np.abs(values - wanted).max() < 0.1 * np.abs(wanted).max()
    weights = [t for t in onnx.load(found.path).graph.initializer if len(t.dims) > 1]
    integers = [list(t.dims) for t in weights if t.data_type == onnx.TensorProto.INT8]
    rest = [sorted(t.dims) for t in weights if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 1]
    assert sorted(map(len, integers)) == [2, 4, 4] and sorted(rest) == [[10, 16]]  # the classifier


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*pip install 'mnist-suite\[onnx\]'"):
        onnx_runtime.session(tmp_path / "model.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"model\.onnx cannot be run"):
        onnx_runtime.session(tmp_path / "model.onnx")
