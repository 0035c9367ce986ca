"""Weights load as training scripts save them: any keys, prefixes, number formats, file formats and file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from suite.errors import InputError
from suite.models.backbones import build, classifier_parameters
from suite.models.pretrained import load_pretrained

NETWORKS = ["lean-s", "timm:test_resnet", "timm:test_vit"]

FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]


def made(name: str, seed: int = 0) -> nn.Module:
    return build(name, classes=10, channels=1, size=32, seed=seed)


@cache
def saved(name: str, seed: int = 1) -> dict[str, Tensor]:
    return made(name, seed).state_dict()


@dataclass(frozen=True)
class Checkpoint:
    """How a state dict is put into a file."""

    keys: tuple[str, ...]
    prefix: str
    between: bool  # torch.compile of a part of the network
    dtype: str
    counters: bool  # whether batch norm's counters get the number format too
    extras: bool
    format: str
    file: str
    folder: bool


containers = st.lists(
    st.sampled_from(["state_dict", "model", "model_ema", "state_dict_ema", "ema", "net", "checkpoint", "module"]),
    max_size=3,
)
checkpoints = st.builds(
    Checkpoint,
    keys=containers.map(tuple),
    prefix=st.lists(
        st.sampled_from(["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "ema_model."]), max_size=4
    ).map("".join),
    between=st.booleans(),
    dtype=st.sampled_from(FLOATS),
    counters=st.booleans(),
    extras=st.booleans(),
    format=st.sampled_from(["safetensors", "zip", "legacy"]),
    file=st.sampled_from(
        [
            "a.pth",
            "model_best.pth.tar",
            "epoch=3.ckpt",
            "pytorch_model.bin",
            "X.PTH",
            "x.SAFETENSORS",
            "weights",
            "a.txt",
        ]
    ),
    folder=st.booleans(),
)


def converted(value: Tensor, how: Checkpoint) -> Tensor:
    return value.to(getattr(torch, how.dtype)) if value.is_floating_point() or how.counters else value


def write(weights: dict[str, Tensor], how: Checkpoint, path: Path) -> None:
    """The file, with what scripts save beside the weights if `extras`."""

    def renamed(name: str) -> str:
        first, dot, rest = name.partition(".")
        return how.prefix + (f"{first}._orig_mod.{rest}" if how.between and dot else name)

    content: dict[str, Any] = {renamed(name): converted(value, how).contiguous() for name, value in weights.items()}
    if how.extras and how.prefix.replace("_orig_mod.", ""):  # as AveragedModel and losses with weights do
        content |= {"n_averaged": torch.tensor(3), "criterion.weight": torch.ones(10)}
    if how.format == "safetensors":
        save_file(content, path)
        return
    if how.extras:
        content["none of the weights"] = "a note"
    for key in reversed(how.keys):
        content = {key: content}
        if how.extras:
            state = {index: {"exp_avg": torch.ones(500, 500), "step": torch.tensor(1.0)} for index in range(2)}
            content |= {"epoch": 7, "optimizer": {"state": state, "param_groups": [{"lr": 0.1}]}, "best": None}
    zipped = how.format == "zip" or "float8" in how.dtype  # PyTorch has no older files of 8-bit numbers
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=15)
@given(how=checkpoints)
def test_the_same_tensors_are_loaded_however_they_were_saved(
    tmp_path_factory: pytest.TempPathFactory, name: str, how: Checkpoint
) -> None:
    folder = tmp_path_factory.mktemp("weights")
    write(saved(name), how, folder / how.file)
    model = made(name)
    load_pretrained(name, model, folder if how.folder else folder / how.file)
    for key, value in model.state_dict().items():
        assert torch.equal(value, converted(saved(name)[key], how).to(value.dtype)), key


@pytest.mark.parametrize("name", NETWORKS[:2])
@pytest.mark.parametrize(
    ("keys", "averaged"),
    [
        (("model", "model_ema"), True),
        (("state_dict", "state_dict_ema"), True),
        (("model.", "ema_model.module."), True),
        (("encoder_q.", "encoder_k."), False),
        (("model", "best_model"), False),
    ],
)
def test_of_two_networks_the_average_is_taken_and_otherwise_none(
    name: str, keys: tuple[str, str], averaged: bool, tmp_path: Path
) -> None:
    content: dict[str, Any] = {}
    for key, seed in zip(keys, (2, 3), strict=True):
        weights = saved(name, seed)
        content |= {key + n: v for n, v in weights.items()} if key.endswith(".") else {key: weights}
    torch.save(content, tmp_path / "own.pth")
    model = made(name)
    if averaged:
        assert keys[1] in load_pretrained(name, model, tmp_path).detail
        assert all(torch.equal(value, saved(name, 3)[key]) for key, value in model.state_dict().items())
    else:
        with pytest.raises(InputError, match=f"{keys[0]}.*{keys[1]}.*which is meant"):
            load_pretrained(name, model, tmp_path)


def test_a_network_that_is_saved_twice_is_loaded(tmp_path: Path) -> None:
    """As of a module with an attribute for its compiled self."""
    weights = saved("lean-s")
    both = {f"net.{n}": v for n, v in weights.items()} | {f"compiled._orig_mod.{n}": v for n, v in weights.items()}
    torch.save({"state_dict": both}, tmp_path / "last.ckpt")
    load_pretrained("lean-s", made("lean-s"), tmp_path)


def test_a_dictionary_that_contains_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": saved("lean-s")}
    content["self"] = content
    torch.save(content, tmp_path / "own.pth")
    load_pretrained("lean-s", made("lean-s"), tmp_path)


@pytest.mark.parametrize("name", [*NETWORKS, "timm:test_convnext", "timm:test_efficientnet"])
def test_a_file_without_a_classifier_fills_all_the_rest(name: str, tmp_path: Path) -> None:
    """As encoders that were trained without labels are saved, beside what they were trained with."""
    head = classifier_parameters(made(name))
    rest = {f"encoder.{key}": value for key, value in saved(name).items() if key not in head}
    torch.save({"state_dict": rest | {"projector.weight": torch.ones(3, 3)}}, tmp_path / "last.ckpt")
    model = made(name)
    detail = load_pretrained(name, model, tmp_path).detail
    assert detail == "taken from encoder.* in state_dict; classifier left out"
    equal = {key for key, value in model.state_dict().items() if torch.equal(value, saved(name)[key])}
    assert saved(name).keys() - equal <= head


def test_names_that_timm_converts_are_found_under_wrappers(tmp_path: Path) -> None:
    """ConvNeXt's own names are none of the network in timm, so its tensors are not found by them."""
    name = "timm:test_convnext"
    theirs = {"stem.": "downsample_layers.0.", "head.norm.": "norm.", "head.fc.": "head.", ".conv_dw.": ".dwconv."}
    theirs |= {".mlp.fc1.": ".pwconv1.", ".mlp.fc2.": ".pwconv2.", ".blocks.": "."}
    weights: dict[str, Tensor] = {}
    donor = build(name, classes=1000, channels=3, size=32, seed=1).state_dict()
    for key, value in donor.items():
        for ours, other in theirs.items():
            key = key.replace(ours, other)
        weights["model.module." + re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)] = value
    torch.save({"epoch": 3, "optimizer": {"step": torch.ones(1)}, "state_dict": weights}, tmp_path / "last.ckpt")
    model = made(name)
    assert "model.module.* in state_dict" in load_pretrained(name, model, tmp_path).detail
    equal = {key for key, value in model.state_dict().items() if torch.equal(value, donor[key])}
    assert donor.keys() - equal == {"stem.0.weight", "head.fc.weight", "head.fc.bias"}


# --- refusals -----------------------------------------------------------------------------------------------


NOT_WEIGHTS = ["int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "qint8", "sparse"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch deprecates quantised tensors
@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_numbers_that_are_no_weights_are_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    def changed(value: Tensor) -> Tensor:
        if kind == "qint8":
            return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
        return value.to_sparse() if kind == "sparse" else value.to(getattr(torch, kind))

    weights = saved(name)
    many = {key: changed(value) if value.is_floating_point() else value for key, value in weights.items()}
    last = next(key for key, value in reversed(weights.items()) if value.ndim >= 2)
    for content in (many, weights | {last: changed(weights[last])}):
        torch.save({"state_dict": content}, tmp_path / "own.pth")
        model = made(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(InputError, match=rf"own\.pth.*\w\.\w.* is {'sparse' if kind == 'sparse' else kind}"):
            load_pretrained(name, model, tmp_path / "own.pth")
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_integers_in_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({key: value.to(torch.int8) for key, value in saved("lean-s").items()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"is int8; .* and \d+ more"):
        load_pretrained("lean-s", made("lean-s"), tmp_path)


def test_values_too_large_for_float32_are_refused(tmp_path: Path) -> None:
    save_file({key: value.double() + 1e300 for key, value in saved("net").items()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="NaN or infinity"):
        load_pretrained("net", made("net"), tmp_path)


def test_all_kinds_of_difference_are_listed_at_once(tmp_path: Path) -> None:
    weights = {f"model.{key}": value for key, value in saved("lean-s").items()}
    del weights["model.stages.0.conv.weight"]
    weights["model.extra.weight"] = torch.ones(3)
    weights["model.hidden.weight"] = torch.ones(3, 3)
    torch.save({"state_dict": weights}, tmp_path / "own.ckpt")
    with pytest.raises(InputError) as refusal:
        load_pretrained("lean-s", made("lean-s"), tmp_path)
    for part in ("own.ckpt (model.* in state_dict)", "1 missing in the file (stages.0.conv.weight)",
                 "1 unknown to the model (extra.weight)", "hidden.weight is 3x3 in the file"):  # fmt: skip
        assert part in str(refusal.value)
