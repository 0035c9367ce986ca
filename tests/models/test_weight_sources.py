"""Where pretrained weights are found: packages, the Hugging Face cache, and a hub that may be out of reach."""

import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from suite.errors import InputError, WorkError
from suite.models import weight_sources
from suite.models.backbones import build
from suite.models.pretrained import load_pretrained
from suite.models.weight_sources import FOLDER_FILES, find_pretrained, weights_file

TIMM_SMALL = "timm:test_resnet"


def made(name: str, classes: int = 10, channels: int = 1, size: int = 28, seed: int = 0) -> nn.Module:
    return build(name, classes=classes, channels=channels, size=size, seed=seed)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, with the hub's client in its default state."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def no_hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that accepts the connection and never answers."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(weight_sources, "HUB_TIMEOUT", 0.3)
        yield


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine. Fill in its files by name; every repository has the same ones."""
    from huggingface_hub import constants

    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            body = files.get(self.path.rpartition("/")[2])
            self.send_response(200 if body or self.path == "/" else 404)
            self.send_header("X-Repo-Commit", "c" * 40)
            if body:
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("Content-Length", str(len(body)))
            elif self.path != "/":
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files.get(self.path.rpartition("/")[2], b""))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    yield files
    server.shutdown()
    server.server_close()


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    monkeypatch.setattr(weight_sources, "_file_in_package", lambda distribution: None)
    with pytest.raises(InputError, match=r"mnist-suite\[weights\]"):
        find_pretrained("timm:tf_efficientnet_lite0")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_come_from_the_hub_and_then_from_the_cache(
    hub: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, file: str, tmp_path: Path
) -> None:
    donor = made(TIMM_SMALL, classes=1000, channels=3, size=64, seed=1)
    if file.endswith(".bin"):
        torch.save(donor.state_dict(), tmp_path / file)
        hub[file] = (tmp_path / file).read_bytes()
    else:
        hub[file] = save(donor.state_dict())
    assert find_pretrained(TIMM_SMALL).path is None
    model = made(TIMM_SMALL, classes=1000, channels=3, size=64)
    provenance = load_pretrained(TIMM_SMALL, model, "pretrained")
    assert same(model.state_dict(), donor.state_dict())
    assert provenance.sha256 == hashlib.sha256(hub[file]).hexdigest()

    monkeypatch.setattr(
        weight_sources, "_is_reachable", lambda endpoint: pytest.fail("asked the hub for a cached file")
    )
    model = made(TIMM_SMALL, size=64)
    again = load_pretrained(TIMM_SMALL, model, "pretrained")
    assert again.source == f"timm/test_resnet.r160_in1k@{'c' * 40}"
    assert again.detail == "conv1.0.weight adapted from 3 to 1 channels; classifier left out"


def test_a_hub_without_the_file_and_a_failing_download(hub: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(TIMM_SMALL, size=64)
    with pytest.raises(InputError, match=r"holds none of model\.safetensors"):
        load_pretrained(TIMM_SMALL, model, "pretrained")

    def broken(*_: object) -> str:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    with pytest.raises(WorkError, match="reset by peer"):
        load_pretrained(TIMM_SMALL, model, "pretrained")


def test_a_hub_out_of_reach_fails_fast_and_names_what_was_tried(no_hub: None, caplog: pytest.LogCaptureFixture) -> None:
    model = made(TIMM_SMALL, size=64)
    before, began = copied(model), time.monotonic()
    with pytest.raises(InputError) as refusal:
        load_pretrained(TIMM_SMALL, model, "pretrained")
    assert time.monotonic() - began < 3
    assert not caplog.records
    for word in ("test_resnet", "cache", "out of reach", "pass the file", "timm:tf_efficientnet_lite0"):
        assert word in str(refusal.value)
    assert same(model.state_dict(), before)


@pytest.mark.slow
def test_hf_hub_offline_prevents_requests() -> None:
    """In a process of its own, because the variables are read at import."""
    code = (
        "from suite.models import weight_sources; from suite.errors import InputError\n"
        "weight_sources._is_reachable = None\n"
        "try: weight_sources.find_pretrained('timm:resnet18')\n"
        "except InputError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "switched off by HF_HUB_OFFLINE" in ran.stdout, ran.stderr
    assert "/nowhere/hub" in ran.stdout


def test_the_suites_own_networks_have_no_public_weights() -> None:
    with pytest.raises(InputError, match="mnist-suite pretrain --backbone cnn"):
        find_pretrained("cnn")


def test_timm_without_a_hub_entry(no_hub: None) -> None:
    with pytest.raises(InputError, match="timm names no weights there"):
        find_pretrained("timm:legacy_seresnet18")


@pytest.mark.parametrize("file", ["model_best.pth.tar", "epoch=3.ckpt", "OWN.PTH", "own.SAFETENSORS", "weights"])
def test_the_only_file_of_weights_in_a_folder_is_found_by_its_content(file: str, tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3)}
    if "SAFE" in file:
        (tmp_path / file).write_bytes(save(tensors))
    else:
        torch.save(tensors, tmp_path / file, _use_new_zipfile_serialization=file != "OWN.PTH")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.pth").write_text("no weights")
    (tmp_path / ".hidden.pth").write_bytes((tmp_path / file).read_bytes())
    assert weights_file(tmp_path) == tmp_path / file


def test_of_several_files_of_weights_the_usual_name_is_taken_and_otherwise_none(tmp_path: Path) -> None:
    for file in ("optimizer.bin", "own.pth"):
        torch.save({"w": torch.ones(3)}, tmp_path / file)
    with pytest.raises(InputError, match=r"2 files of weights \(optimizer\.bin, own\.pth\)"):
        weights_file(tmp_path)
    for file in reversed(FOLDER_FILES):
        torch.save({"w": torch.ones(3)}, tmp_path / file)
        assert weights_file(tmp_path) == tmp_path / file


def test_weights_that_are_split_over_files_are_refused(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"model-0000{part}-of-00002.safetensors").write_bytes(save({f"w{part}": torch.ones(3)}))
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="split over 2 files"):
        weights_file(tmp_path)
