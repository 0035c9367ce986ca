"""What a server answers: the predictions of `predict`, its card, its metrics; and to whom."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from suite.export.card import read_card
from suite.export.predict import Predictor

if TYPE_CHECKING:
    from tests.serving.conftest import Served

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def server(serve: Callable[..., Served]) -> Served:
    return serve()


def test_serve_and_predict_give_the_same_answers(server: Served, model: Path, digits: list[Path]) -> None:
    """One by one, as a form, and as JSON; and `predict` prints them without loading PyTorch."""
    expected = [{**Predictor(model).file(path), "image": path.name} for path in digits]
    kinds = ["image/jpeg" if path.suffix == ".jpg" else "image/png" for path in digits]
    for path, kind, answer in zip(digits, kinds, expected, strict=True):
        assert server.predict(path.read_bytes(), kind).json == {**answer, "image": None}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="a"; filename="{path.name}"\r\n\r\n'.encode() + path.read_bytes()
        for path in digits
    ]
    form = server.predict(b"\r\n".join([*parts, b"--x--\r\n"]), "multipart/form-data; boundary=x")
    items = [{"image": base64.b64encode(path.read_bytes()).decode(), "name": path.name} for path in digits]
    listed = server.predict(json.dumps(items).encode(), "application/json")
    for answers in (form.json, listed.json):
        for answer, one in zip(answers, expected, strict=True):
            assert answer["image"] == one["image"] and answer["label"] == one["label"]
            assert answer["probabilities"] == pytest.approx(one["probabilities"], abs=2e-6)  # of another batch
    code = "import sys; from suite.cli.main import app; app(standalone_mode=False); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(model), str(digits[0]), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{**expected[0], "image": str(digits[0])}]


def test_pixels_are_seen_as_a_file_of_them(server: Served, digits: list[Path]) -> None:
    grey = np.asarray(Image.open(digits[4]).convert("L"))
    colour = np.stack([grey] * 3, 2)
    file = server.ask("/predict?seen=1", digits[4].read_bytes(), Content_Type="image/png").json
    for pixels in (grey, colour):
        body = json.dumps({"pixels": pixels.tolist(), "name": "d" * 1000}).encode()
        answer = server.ask("/predict?seen=1", body, Content_Type="application/json; charset=utf-8").json
        assert answer["image"] == "d" * 200 and answer["label"] == file["label"]
        if pixels is grey:
            assert {**answer, "image": None} == file
    seen = Image.open(io.BytesIO(base64.b64decode(file["seen"].partition(",")[2])))
    assert seen.size == (28, 28) and seen.mode == "L"


def test_a_picture_that_cannot_be_used_stands_beside_the_answers(server: Served, digits: list[Path]) -> None:
    good = {"image": base64.b64encode(digits[0].read_bytes()).decode()}
    blank = {"pixels": [[7] * 30] * 30}
    mixed = server.predict(json.dumps([blank, good]).encode(), "application/json")
    assert mixed.code == 200 and ["error" in answer for answer in mixed.json] == [True, False]
    assert server.predict(json.dumps([blank, blank]).encode(), "application/json").code == 422


def test_the_server_tells_of_itself_but_not_of_its_machine(server: Served, model: Path) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    card = server.ask("/card").json
    assert card["classes"] == list(read_card(model).classes) and card["format"] == "onnx" == server.facts["format"]
    assert card["dataset"] == "folder:pictures"
    metrics = server.ask("/metrics")
    assert 'mnist_suite_requests_total{code="200"}' in metrics.body.decode()
    assert 'mnist_suite_model_info{format="onnx",trial="s/t"} 1.0' in metrics.body.decode()
    page = server.ask("/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and b"//" not in page.body.split(b"<script>")[0]
    for answer in (page, metrics, server.ask("/card"), server.ask("/nothing"), server.ask("/health", method="HEAD")):
        assert answer.headers["Server"] == "mnist-suite" and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert b"/home" not in answer.body and str(model.parent).encode() not in answer.body


def test_a_token_is_asked_for_by_all_but_the_page(serve: Callable[..., Served], digits: list[Path]) -> None:
    server = serve("--verbose", MNIST_SUITE_TOKEN=TOKEN)
    assert server.ask("/").code == server.ask("/health").code == 200
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "é"}):
        for path, body in (("/metrics", None), ("/card", None), ("/predict", b"x"), ("/none", None)):
            refused = server.ask(path, body, **given)
            assert refused.code == 401 and refused.headers["WWW-Authenticate"].startswith("Bearer")
    for scheme in ("Bearer", "bearer"):
        answer = server.predict(digits[0].read_bytes(), Authorization=f"{scheme} {TOKEN}")
        assert answer.code == 200 and "label" in answer.json
    code, said = server.end()
    assert code == 143 and TOKEN not in said
    assert len([line for line in said.splitlines() if "POST /predict" in line]) == 6
    assert "POST /predict 200" in said


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "rebound.example.org"}, 421),
        ({"Host": "localhost.example.org:80"}, 421),
        ({"Host": "127.0.0.1@example.org"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost:9999"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(server: Served, headers: dict[str, str], code: int) -> None:
    assert server.ask("/card", **headers).code == code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "a token is needed"),
        (["--token", "short"], "16 characters"),
        (["--token", "ü" * 20], "ASCII"),
        (["--host", "no.such.host.invalid", "--token", TOKEN], "no address"),
        (["--port", "PORT"], "is in use"),
        (["--format", "int8"], "holds no model.int8.onnx"),
    ],
)
def test_what_cannot_be_served_is_refused(
    words: list[str], said: str, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from suite.cli import main

    with socket.create_server(("127.0.0.1", 0)) as other:
        words = [str(other.getsockname()[1]) if word == "PORT" else word for word in words]
        monkeypatch.setattr(sys, "argv", ["mnist-suite", "serve", str(model), "--port", "0", *words])
        with pytest.raises(SystemExit) as end:
            main.main()
    out, err = capfd.readouterr()
    assert end.value.code == 2 and said in err and out == "" and "Traceback" not in err
