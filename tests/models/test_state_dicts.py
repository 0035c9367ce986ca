"""State dicts are read from files of all kinds, and damaged or hostile files are refused."""

import gzip
import json
import pickle
import struct
from argparse import Namespace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from suite.errors import InputError
from suite.models.backbones import build
from suite.models.state_dicts import read_tensors


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
    "short": b"\x80",
}

# Files that people take for weights, and what is said of them.
NO_WEIGHTS = {
    "empty.pth": (b"", "is empty"),
    "model.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "model.pth": (b"<!DOCTYPE html><html>", "web page"),
    "model.safetensors.index.json": (b'{"weight_map": {}}', "JSON"),
    "model.pth.gz": (gzip.compress(b"weights"), "gzip"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "photo.jpg": (b"\xff\xd8\xff\xe0" + bytes(99), "is no file of weights"),
}


@pytest.mark.parametrize(("file", "data"), BROKEN.items(), ids=BROKEN)
def test_broken_and_hostile_files_are_refused(
    file: str, data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_bytes(data)
    with pytest.raises(InputError, match=file):
        read_tensors(tmp_path / file)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(("file", "data", "what"), [(name, *rest) for name, rest in NO_WEIGHTS.items()], ids=NO_WEIGHTS)
def test_files_of_other_kinds_are_named(file: str, data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(data)
    with pytest.raises(InputError, match=f"{file}.*{what}"):
        read_tensors(tmp_path / file)


def test_archives_that_torch_save_has_not_written_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", w=np.ones(3))
    with ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photos/data/1.png", b"no weights")
    for file in ("weights.npz", "photos.zip"):
        with pytest.raises(InputError, match=rf"{file} is a zip archive, but not one of torch\.save"):
            read_tensors(tmp_path / file)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_programs_of_torchscript_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"program of TorchScript.*state_dict"):
        read_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("file", ["model_best.pth.tar", "last.ckpt", "weights"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_class_of_an_object_beside_the_weights_is_named(file: str, zipped: bool, tmp_path: Path) -> None:
    content = {"state_dict": {"w": torch.ones(1)}, "args": Namespace(lr=0.1)}
    torch.save(content, tmp_path / file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"Python objects \(argparse\.Namespace\).*run code"):
        read_tensors(tmp_path / file)


@pytest.mark.parametrize(
    "content",
    [{"w": Payload()}, {"w": 1}, [torch.ones(1)], {"w": torch.ones(1).expand(2**40)}],
    ids=["object", "number", "list", "tensor larger than its file"],
)
def test_pickles_of_anything_but_tensors_are_refused(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own\.pth .*saved"):
        read_tensors(tmp_path / "own.pth")
    assert "this ran" not in capsys.readouterr().out


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(build("net", classes=10, channels=1, size=28, seed=0).state_dict(), tmp_path / "own.pth")
    (tmp_path / "own.pth").write_bytes((tmp_path / "own.pth").read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_tensors(tmp_path / "own.pth")


@settings(max_examples=60)
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
