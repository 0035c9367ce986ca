"""Memory that the C library keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from suite.hardware import memory


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(memory.held_bytes() == 0, reason="the C library does not tell what it holds")
def test_a_trial_that_is_over_leaves_its_memory_to_the_system() -> None:
    memory.keep_memory()
    tensors = [torch.ones(1 << 20) for _ in range(150)]  # 600 MiB in pieces that are kept once freed
    full = resident()
    del tensors
    assert resident() > full - (100 << 20)
    assert memory.held_bytes() > 500 << 20
    memory.make_room()
    assert resident() < full - (500 << 20)


def test_channels_are_stored_last_where_a_model_has_other_parameters_too() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(3, 4, 3), torch.nn.Linear(4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert memory.channels_last(model) is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("kernel", [1, 3])
def test_strides_are_those_of_module_to(groups: int, kernel: int) -> None:
    """Of 1x1 and depthwise kernels too, whose first strides count both as channels first and as channels last."""
    ours, theirs = (torch.nn.Conv2d(6, 12, kernel, groups=groups) for _ in range(2))
    memory.channels_last(ours)
    theirs.to(memory_format=torch.channels_last)
    assert ours.weight.stride() == theirs.weight.stride()
