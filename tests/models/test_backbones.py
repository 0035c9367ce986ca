"""One contract over every backbone (shapes, features, blocks, seeds), and properties of the suite's own networks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from suite.data.splits import Info
from suite.errors import InputError
from suite.models import backbones
from suite.models.backbones import BACKBONES, build, embed, embed_size
from suite.models.preprocessing import preprocess
from suite.spec import Preprocess

# One timm model of each kind: plain, fixed size, a hidden layer before the classifier, norm layers of timm's own, a
# classifier inside a head module.
TIMM = [
    f"timm:{name}"
    for name in (
        "test_resnet",
        "test_efficientnet_evos",
        "test_convnext",
        "test_vit",
        "test_mambaout",
        "test_nfnet",
        "tf_efficientnet_lite0",
    )
]
EVERY = [*BACKBONES, *TIMM]
WITHOUT_NORM = {"cnn", "net", "timm:test_nfnet"}


def expects(
    name: str, channels: int = 1, native: int = 28, size: int | None = None, trained: bool = False
) -> Preprocess:
    return preprocess(name, described(channels, native), size=size, pretrained=trained)


def described(channels: int = 1, native: int = 28, **changes: object) -> Info:
    """A data set of images of `native` pixels."""
    mean, std = (0.1,) * channels, (0.3,) * channels
    return replace(Info("d", "d", ("a", "b"), channels, native, mean, std, "", ""), **changes)  # type: ignore[arg-type]


def made(name: str, channels: int = 1, native: int = 28, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The backbone for a data set's images, and two such images."""
    size = expects(name, channels, native).size
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))
    return build(name, classes=10, channels=channels, size=size, seed=seed), images


def test_the_tutorials_networks_are_backbones() -> None:
    assert {"cnn", "net"} < set(BACKBONES)


@pytest.mark.parametrize("native", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_scores_and_features_have_their_shapes(name: str, channels: int, native: int) -> None:
    model, images = made(name, channels, native)
    assert model.training
    model.eval()
    features = embed(model, images)
    assert features.shape == (2, embed_size(model))
    assert model(images).shape == (2, 10)
    if name in BACKBONES:
        assert embed_size(model) == model.num_features


@pytest.mark.parametrize("name", EVERY)
def test_a_classifier_on_the_features_gives_the_scores(name: str) -> None:
    model, images = made(name)
    model.eval()
    before = embed(model, images)
    model.reset_classifier(7)  # type: ignore[operator]
    assert model(images).shape == (2, 7)
    assert torch.equal(embed(model, images), before)
    model.reset_classifier(0)  # type: ignore[operator]
    assert torch.equal(model(images), before)
    assert backbones.classifier_parameters(model) == set()


@pytest.mark.parametrize("name", EVERY)
def test_blocks_hold_every_parameter_once_and_end_with_the_classifier(name: str) -> None:
    model, _ = made(name)
    groups = backbones.blocks(model)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert set(groups[-1]) == backbones.classifier_parameters(model)
    assert len(groups) > 2
    assert next(iter(model.named_parameters()))[0] in groups[0]


@pytest.mark.parametrize("name", EVERY)
def test_norm_parameters_are_scales_and_shifts(name: str) -> None:
    model, _ = made(name)
    names = backbones.norm_parameters(model)
    parameters = dict(model.named_parameters())
    assert (not names) == (name in WITHOUT_NORM)
    assert all(parameters[each].numel() == max(parameters[each].shape) for each in names)
    kinds = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    known = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    assert all(f"{path}.weight" in names for path in known)


@pytest.mark.parametrize("name", EVERY)
def test_weights_follow_from_the_seed_and_leave_the_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (made(name, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_learns(name: str) -> None:
    model, images = made(name)
    F.cross_entropy(model(torch.cat([images, 1 - images])), torch.tensor([0, 1, 2, 3])).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- the suite's own networks -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("cnn", 421_642), ("net", 21_840)])
def test_the_tutorials_networks_have_its_parameters(name: str, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in made(name)[0].parameters()) == parameters


def test_cnn_computes_the_same_as_the_tutorials_network() -> None:
    """The tutorial pools after the ReLU. Built in its order, PyTorch's modules draw the same initial weights."""
    cnn, images = made("cnn", seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tutorial = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2)),
            *(nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
    torch.testing.assert_close(cnn(images), tutorial(images))
    torch.testing.assert_close(embed(cnn, images), tutorial[:-1](images))


def test_a_strided_stage_computes_every_other_pixel() -> None:
    stage = backbones.Stage(1, 4, kernel=6, padding=0, norm=False, strided=True)
    images = made("net")[1]
    everywhere = F.conv2d(images, stage.conv.weight, stage.conv.bias)
    torch.testing.assert_close(stage(images), F.relu(everywhere[:, :, ::2, ::2]))


def test_networks_have_the_flops_that_their_comment_states() -> None:
    def flops(name: str) -> int:
        model, images = made(name)
        with FlopCounterMode(display=False) as counter:
            model.eval()(images[:1])
        return counter.get_total_flops()

    assert flops("cnn") == 8_482_304
    stated = {"lean-xxs": 0.4, "lean-xs": 2.1, "lean-s": 1.3, "lean-m": 4.9, "lean-l": 8.4}
    assert {name: round(flops(name) / 1e6, 1) for name in stated} == stated


@pytest.mark.parametrize("name", BACKBONES)
def test_networks_have_no_data_dependent_control_flow(name: str) -> None:
    model, images = made(name)
    model.eval()
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(images), model(images))


@pytest.mark.parametrize("name", sorted(WITHOUT_NORM & set(BACKBONES)))
def test_copies_without_norm_can_be_stacked_with_vmap(name: str) -> None:
    copies = [made(name, seed=seed)[0] for seed in range(3)]
    images = made(name)[1]
    stacked, _ = torch.func.stack_module_state(copies)

    def scores(state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(copies[0], state, images)

    together = torch.vmap(scores)(stacked)
    torch.testing.assert_close(together, torch.stack([copy(images) for copy in copies]), rtol=1e-4, atol=1e-5)


def test_reduced_precision_and_channels_last() -> None:
    model, images = made("lean-l")
    model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(images.contiguous(memory_format=torch.channels_last))
    scores.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# --- what a model expects -------------------------------------------------------------------------------------


def test_own_networks_take_images_at_native_size() -> None:
    plain = Preprocess(channels=1, size=28, stored=28, interpolation="bilinear", mean=(0.1,), std=(0.3,))
    assert expects("cnn") == plain
    small = {"channels": 3, "size": 16, "stored": 32, "mean": (0.1,) * 3, "std": (0.3,) * 3}
    assert expects("cnn", channels=3, native=32, size=16) == plain.model_copy(update=small)


def test_own_pictures_are_decoded_to_the_size_of_the_input() -> None:
    """With public weights as timm evaluates them, central crop included; `fit` is the data set's or the arm's."""
    photos = described(3, 64, decoded=True, fit="crop", white=4095.0)
    found = preprocess("timm:tf_efficientnet_lite0", photos, size=224, pretrained=True)
    assert (found.size, found.stored, found.crop_share, found.fit, found.white) == (224, 224, 0.875, "crop", 4095.0)
    assert preprocess("timm:tf_efficientnet_lite0", photos, size=224).crop_share == 1.0
    padded = preprocess("timm:tf_efficientnet_lite0", photos, pretrained=True, fit="pad")
    assert (padded.size, padded.fit, padded.crop_share) == (64, "pad", 1.0)
    assert preprocess("cnn", photos).stored == 64


def test_pretrained_timm_models_have_their_own_normalisation() -> None:
    assert expects("timm:resnet18").mean == (0.1,)
    grey, colour = expects("timm:resnet18", trained=True), expects("timm:resnet18", channels=3, trained=True)
    assert colour.mean == (0.485, 0.456, 0.406)
    assert grey.mean == (pytest.approx(0.449),)
    assert grey.std == (pytest.approx(0.226),)
    assert expects("timm:tf_efficientnet_lite0", trained=True).mean == (0.5,)
    assert expects("timm:resnet18.tv_in1k").interpolation == "bilinear"


@pytest.mark.parametrize(
    ("name", "native", "wanted", "size"),
    [
        ("timm:resnet18", 28, None, 64),
        ("timm:resnet18", 96, None, 96),
        ("timm:resnet18", 640, None, 224),
        ("timm:resnet18", 28, 32, 32),
        ("timm:test_vit", 28, None, 160),
        ("timm:test_vit", 28, 64, 64),
    ],
)
def test_default_input_size_of_timm_models(name: str, native: int, wanted: int | None, size: int) -> None:
    found = expects(name, native=native, size=wanted)
    assert found.size == size
    assert (found.stored, found.interpolation) == (native, "bicubic")
    if name == "timm:test_vit":  # is built for one size
        model = build(name, classes=10, channels=1, size=size, seed=0)
        assert model(torch.rand(1, 1, size, size)).shape == (1, 10)


@given(st.sampled_from(EVERY), st.integers(1, 5), st.integers(1, 512), st.booleans())
def test_preprocess_has_one_mean_and_std_per_channel(name: str, channels: int, native: int, trained: bool) -> None:
    found = expects(name, channels, native, trained=trained)
    assert len(found.mean) == len(found.std) == found.channels == channels
    assert found.stored == native


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lean", "lean-s"),
        ("CNN", "Choose one of cnn"),
        ("resnet18", "timm:<name>"),
        ("timm:", "timm:<name>"),
        ("timm:resnet19", "timm:resnet18"),
        ("timm:resnet18.nonsense", "timm:resnet18.tv_in1k"),
        ("timm:hf-hub:somebody/something", "timm:<name>"),
    ],
)
def test_unknown_names_are_refused_with_similar_names(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        build(name, classes=10, channels=1, size=28, seed=0)


@pytest.mark.parametrize(
    ("name", "size"), [("net", 9), ("lean-l", 12), ("timm:test_vit", 17), ("timm:test_convnext", 2)]
)
def test_images_that_a_model_cannot_take_are_refused_by_build(name: str, size: int) -> None:
    with pytest.raises(InputError, match=f"{name} cannot take images of {size} pixels"):
        build(name, classes=10, channels=1, size=size, seed=0)
