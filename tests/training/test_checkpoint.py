"""Checkpoints: two generations, and never a damaged one taken for whole."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.models.state_dicts import read_tensors
from suite.training import checkpoint


def state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    return {"model.w": torch.full((50,), float(step))}, {"step": step}


def test_the_newest_generation_comes_back(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    for step in range(1, 6):
        checkpoint.save(tmp_path, *state(step))
        loaded = checkpoint.load(tmp_path)
        assert loaded is not None
        assert loaded[1] == {"step": step}
        assert loaded[0]["model.w"][0] == step
    checkpoint.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, *state(1))
    checkpoint.save(tmp_path, *state(2))
    newest = tmp_path / checkpoint.SLOTS[1]
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-3] ^= 1
        newest.write_bytes(data)
    else:
        newest.unlink()
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded[1] == {"step": 1}


@given(index=st.binary(max_size=200))
@settings(max_examples=50)
def test_an_arbitrary_index_is_no_checkpoint(index: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("index")
    (folder / checkpoint.INDEX).write_bytes(index)
    assert checkpoint.load(folder) is None


def test_tensors_that_share_memory_are_saved_under_each_name(tmp_path: Path) -> None:
    """safetensors refuses them, on a CPU only and after all training: CoaT registers one module in several blocks."""
    shared = torch.nn.Linear(3, 2)
    model = torch.nn.ModuleDict({"first": shared, "second": shared, "own": torch.nn.Linear(3, 2)})
    tensors = {**model.state_dict(), "row": shared.weight[0], "turned": shared.weight.T}
    checkpoint.save_tensors(tmp_path / "w.safetensors", tensors)
    found = read_tensors(tmp_path / "w.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    checkpoint.save(tmp_path, tensors, {})
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None and loaded.tensors.keys() == tensors.keys()
