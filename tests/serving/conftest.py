"""A served model. Its graph is written by hand, since these tests are about requests: a worker loads it in no time."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from suite import interpreter
from suite.data.datasets import search_splits
from suite.export.card import CARD, FILES, Card
from suite.spec import Preprocess

for needed in ("aiohttp", "prometheus_client", "onnx", "onnxruntime"):
    pytest.importorskip(needed)


def write_model(folder: Path, *, placement: str | None = "centred") -> None:
    """An export of a linear model in ONNX alone."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(size=(28 * 28, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["levels", "gain"], ["x"]),
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.float32(1 / 2550), "gain"), numpy_helper.from_array(weights, "weights")],
    )
    folder.mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / FILES["onnx"])
    card = Card(
        backbone="net", dataset="folder:/home/somebody/pictures", classes=("café", "thé", "猫"), trial="s/t",
        strategy="scratch",
        preprocess=Preprocess(channels=1, size=28, stored=28, mean=(0.5,), std=(0.5,), placement=placement),
        accuracy=0.5, interval=(0.4, 0.6), images=10, sha256="0" * 64, timm=False, cost=None, provenance=None,
    )  # fmt: skip
    (folder / CARD).write_text(card.model_dump_json())


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    write_model(folder)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Picture files of real digits: in the data set's form, larger, and as JPEG."""
    folder = tmp_path_factory.mktemp("digits")
    for i, digit in enumerate(search_splits("mnist", limit=20).validation.images[:6, 0]):
        image = Image.fromarray(digit) if i < 4 else Image.fromarray(255 - digit).resize((300, 240))
        image.save(folder / f"{i}.{'jpg' if i == 5 else 'png'}")
    return sorted(folder.iterdir())


@dataclass
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A server at work."""

    process: subprocess.Popen[str]
    port: int
    facts: dict[str, Any] = field(default_factory=dict)

    def ask(self, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, names)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def predict(self, picture: bytes, kind: str = "image/png", **headers: str) -> Answer:
        return self.ask("/predict", picture, Content_Type=kind, **headers)

    async def raw(self, sent: bytes, *, close: bool = False) -> bytes:
        """What the server answers to these bytes, until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            await writer.drain()
            if close:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code, and what it said."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def serve(model: Path) -> Iterator[Callable[..., Served]]:
    """Starts `mnist-suite serve` on the model, at a free port."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, folder: Path = model, **environment: str) -> Served:
        process = subprocess.Popen(
            interpreter.command("serve", str(folder), "--port", "0", "--json", *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        begun.append(process)
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        facts = json.loads(line)
        return Served(process, facts["port"], facts)

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()
