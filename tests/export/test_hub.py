"""Publishing exported models: the metadata of the card, and uploads to a hub on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard

from suite.errors import InputError, WorkError
from suite.export import hub
from suite.export.card import CARD, WEIGHTS, read_card
from suite.export.front_matter import front_matter

if TYPE_CHECKING:
    from tests.conftest import Command

TOKEN = "hf_secret0123456789"


class Hub(ThreadingHTTPServer):
    """The endpoints of the hub that an upload uses, after huggingface_hub's own requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.failing: tuple[int, str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, content: Any, message: str = "") -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        if message:
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        _, _, _, owner, name, *rest = self.path.partition("?")[0].split("/")
        repo = f"{owner}/{name}"
        files = self.server.repos.get(repo)
        if files is None:
            self.answer(404, {}, "Repository not found")
        elif rest:
            self.answer(200, [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in files])
        else:
            self.answer(200, {"id": repo, "private": self.server.private[repo]})

    def do_PUT(self) -> None:
        data = self.body()
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
        self.server.blobs[self.path.rpartition("/")[2]] = data
        self.answer(200, {})

    def do_POST(self) -> None:
        data = self.body()
        if self.server.failing is not None:
            self.answer(*self.server.failing[:1], {}, self.server.failing[1])
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {}, "Invalid credentials in Authorization header")
        elif self.path == "/api/repos/create":
            asked = json.loads(data)
            repo = f"{asked.get('organization') or 'ann'}/{asked['name']}"
            new = repo not in self.server.repos
            if new:
                self.server.repos[repo] = {".gitattributes": b""}
                self.server.private[repo] = asked.get("private") is True or asked.get("visibility") == "private"
            self.answer(200 if new else 409, {"url": f"{self.server.address}/{repo}"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"warnings": [], "errors": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(data)["files"]
            modes = {file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in files}
            self.answer(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(data)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}
            self.answer(200, {"transfer": "basic", "objects": objects})
        else:
            self.commit(data)

    def commit(self, data: bytes) -> None:
        _, _, _, owner, name, *_ = self.path.split("/")
        files = self.server.repos[f"{owner}/{name}"]
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self.server.commits.append(value["summary"])
        url = f"{self.server.address}/{owner}/{name}/commit/1"
        self.answer(200, {"commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub of its own, and no token of the person who runs the tests."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # of command lines
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server
        server.shutdown()


@pytest.fixture
def model(models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models["timm"], tmp_path / "model"))


def test_the_card_has_the_metadata_of_the_hub(models: dict[str, Path]) -> None:
    """Accuracy as one on validation; no path of this machine; the license is left to the owner."""
    for arm in ("net", "timm"):
        card, data = read_card(models[arm]), ModelCard.load(models[arm] / "README.md").data
        assert data.pipeline_tag == "image-classification" and data.metrics == ["accuracy"] and data.license is None
        assert data.library_name == ("timm" if arm == "timm" else "mnist-suite") and "safetensors" in (data.tags or [])
        (result,) = data.eval_results or []
        assert result.dataset_split == "validation" and result.metric_value == card.accuracy_fp32
        assert "folder:" not in front_matter(card)
        known = front_matter(card.model_copy(update={"dataset": "mnist"}))
        assert "ylecun/mnist" in known


def test_a_push_is_one_commit_of_the_folder(server: Hub, model: Path, suite: Command) -> None:
    server.repos["ann/digits"] = {".gitattributes": b"", "model.onnx": b"of an earlier export", "notes.md": b"mine"}
    server.private["ann/digits"] = False
    (model / ".hidden").write_text("mine")
    done = suite("push", model, "digits", "--license", "mit", HF_TOKEN=TOKEN, HF_ENDPOINT=server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{server.address}/ann/digits\n" and "name the folder of your pictures" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    files = server.repos["ann/digits"]
    assert files.keys() == {".gitattributes", "notes.md", CARD, WEIGHTS, "README.md", "config.json"}
    assert len(server.commits) == 1
    for name in (CARD, WEIGHTS, "config.json"):
        assert files[name] == (model / name).read_bytes()
    assert ModelCard(files["README.md"].decode()).data.license == "mit"
    body = (model / "README.md").read_text()
    assert files["README.md"].decode().partition("\n# ")[2] == body.partition("\n# ")[2] and "license" not in body[:400]


def test_a_dry_run_needs_no_network_and_no_token(model: Path, suite: Command) -> None:
    (model / "LICENSE").write_text("text")
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": ""}
    done = suite("push", model, "ann/digits", "--dry-run", **elsewhere)
    assert done.returncode == 0 and "states no license" in done.stdout and "no part of the export" in done.stdout
    assert (model / "README.md").read_text() in done.stdout
    assert hub.plan(model, "ann/digits").files == {path.name: path.stat().st_size for path in model.iterdir()}
    refused = suite("push", model, "ann/digits", **elsewhere)
    assert refused.returncode == 2 and "no token" in refused.stderr
    offline = suite("push", model, "ann/digits", "--token", TOKEN, **elsewhere)
    assert offline.returncode == 1 and "cannot be reached" in offline.stderr and TOKEN not in offline.stderr


def test_private_means_private(server: Hub, model: Path) -> None:
    upload = hub.plan(model, "ann/secret")
    assert hub.push(upload, TOKEN, private=True)["files"] == upload.files and server.private["ann/secret"]
    server.private["ann/secret"] = False
    with pytest.raises(InputError, match="is public; nothing was uploaded"):
        hub.push(upload, TOKEN, private=True)
    assert len(server.commits) == 1


@pytest.mark.parametrize(
    "failing, error, reason",
    [
        ((401, "Invalid credentials in Authorization header"), InputError, "does not accept the token"),
        ((403, f"{TOKEN} has no rights"), InputError, r"\*\*\* has no rights.*Give it that right"),
        ((400, "no such license"), InputError, "refuses the upload .* no such license"),
        ((500, "on fire"), WorkError, "status 500: on fire"),
    ],
)
def test_what_the_hub_refuses_is_told_without_the_token(
    failing: tuple[int, str], error: type[Exception], reason: str, server: Hub, model: Path
) -> None:
    server.failing = failing
    with pytest.raises(error, match=reason) as refused:
        hub.push(hub.plan(model, "ann/digits"), TOKEN)
    assert TOKEN not in str(refused.value)


def test_what_cannot_be_uploaded_is_refused_before(server: Hub, model: Path) -> None:
    for repo_id in ("a/b/c", "", "ann/--", "-ann", "ann/" + "x" * 100, "ann/\x1b[31m", "ann/digits.git"):
        with pytest.raises(InputError, match="OWNER/NAME"):
            hub.plan(model, repo_id)
    with pytest.raises(InputError, match="--license is 'My Own'"):
        hub.plan(model, "ann/digits", "My Own")
    for token in ("two words", "tök", "a\nb"):
        with pytest.raises(InputError, match="copy it again") as refused:
            hub.push(hub.plan(model, "ann/digits"), token)
        assert token not in str(refused.value)
    (model / "README.md").write_text("---\ntags: [\n---\n")
    with pytest.raises(InputError, match="no valid metadata"):
        hub.plan(model, "ann/digits")
    (model / WEIGHTS).write_bytes(b"other")
    with pytest.raises(InputError, match="SHA-256 differs"):
        hub.plan(model, "ann/digits")
    (model / "README.md").unlink()
    with pytest.raises(InputError, match=r"has no README\.md"):
        hub.plan(model, "ann/digits")
    assert not server.repos
