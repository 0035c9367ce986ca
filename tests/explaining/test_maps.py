"""Whether the maps mean something, on a trained network and real digits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import spearmanr
from torch import nn

from suite.errors import InputError
from suite.explaining import layers, methods
from suite.explaining.deletion import deletion, foreground, random_deletion
from suite.explaining.explain import Explained, Explainer
from suite.explaining.nearest import nearest_or_why_not
from suite.explaining.raster import raster, shrunk, signed_bytes
from suite.explaining.subject import Subject
from suite.models import backbones, heads
from suite.spec import SIGNED, Attribution, Knn

CPU = torch.device("cpu")
SEEN = 6  # digits

Make = Callable[..., Subject]


def explained(subject: Subject, images: np.ndarray, **options: object) -> list[Explained]:
    explainer = Explainer(subject, CPU, **options)
    return [explainer.explain(image, str(i)) for i, image in enumerate(images)]


def inputs(subject: Subject, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    explainer = Explainer(subject, CPU)
    x = explainer.normalize(torch.from_numpy(image)[None].float())
    return x, explainer._baseline(x)


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> list[Explained]:
    """Explanations of a few digits by all methods."""
    network, digits = request.getfixturevalue("network"), request.getfixturevalue("digits")
    info = digits.splits.info
    from suite.models.preprocessing import preprocess

    subject = Subject("s/t", network, preprocess("cnn", info), info.classes, "mnist", None)
    return explained(subject, digits.images[:SEEN])


@pytest.mark.parametrize("share", [0.01, 0.0005])
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(subject: Make, digits, share: float) -> None:
    model = subject().model
    taken = set()
    for image in digits.images[:2]:
        x, baseline = inputs(subject(), image)
        target = int(model(x).argmax())
        made = methods.integrated_gradients(model, methods.Question(x, baseline, target, share, 256))
        ends = methods.score(model, torch.cat((x, baseline)), target)
        difference = float(ends[0] - ends[1])
        remainder = abs(float(made.values.sum()) - difference) / abs(difference)
        assert made.facts["remainder"] == pytest.approx(remainder, abs=1e-4)
        assert remainder <= share or made.facts["steps"] == methods.MOST_STEPS
        taken.add(made.facts["steps"])
    assert share > 0.001 or max(taken) > methods.FEWEST_STEPS  # they are raised where that is asked for


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients", "occlusion"])
def test_the_most_important_pixels_matter_more_than_random_ones(found: list[Explained], method: str) -> None:
    falls = [(one.facts[method]["deletion"], one.facts[method]["random"]) for one in found]
    ours, chance = np.mean(falls, axis=0)
    assert ours < 0.8 * chance
    assert sum(a < b for a, b in falls) > SEEN / 2


def test_a_map_of_nothing_is_no_better_than_chance(subject: Make, digits) -> None:
    """Equal values are no order, though pixels have one."""
    model, ours, chance = subject().model, 0.0, 0.0
    for image in digits.images[:SEEN]:
        x, baseline = inputs(subject(), image)
        target = int(model(x).argmax())
        ours += deletion(model, x, baseline, target, torch.zeros(28, 28), 256)
        chance += random_deletion(model, x, baseline, target, 256)
    assert ours == pytest.approx(chance, rel=0.25)


def correlation(one: Explained, other: Explained, method: str, ink: np.ndarray) -> float:
    """Of the signed values of foreground pixels: over all pixels, the black ground alone would make maps alike."""
    return float(spearmanr(one.maps[method].ravel()[ink], other.maps[method].ravel()[ink]).statistic)


@pytest.mark.parametrize("method", sorted(SIGNED))
def test_a_network_without_its_weights_gives_another_map(found, subject: Make, digits, method: str) -> None:
    untrained = backbones.build("cnn", classes=10, channels=1, size=28, seed=7).eval()
    nudged = copy.deepcopy(subject().model)
    with torch.no_grad():
        for weight in nudged.parameters():
            weight.mul_(1 + 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    kept: dict[str, list[float]] = {"untrained": [], "nudged": []}
    for name, model in (("untrained", untrained), ("nudged", nudged)):
        explainer = Explainer(subject(model), CPU, (method,))
        for one, image in zip(found, digits.images):
            other = explainer.explain(image, "", target=one.target)
            ink = foreground(*inputs(subject(), image)).numpy()
            kept[name].append(correlation(one, other, method, ink))
    assert np.mean(kept["nudged"]) > 0.8
    assert abs(np.mean(kept["untrained"])) < 0.4


@pytest.mark.parametrize(
    ("backbone", "size", "name", "cells"),
    [
        ("cnn", 28, "stages.1", 7),
        ("net", 28, "stages.0", 12),  # its last map, 4 x 4, is too coarse
        ("lean-m", 28, "stages.1", 5),
        ("timm:tf_efficientnet_lite0", 64, "blocks.2.1", 8),  # 2 x 2 at its last convolution
        ("timm:test_resnet", 64, None, 8),
    ],
)
def test_grad_cam_takes_the_last_map_that_shows_places(backbone: str, size: int, name: str | None, cells: int) -> None:
    model = backbones.build(backbone, classes=4, channels=1, size=size, seed=0).eval()
    chosen = layers.choose(model, torch.randn(1, 1, size, size))
    assert chosen is not None and chosen.cells == (cells, cells) and name in (None, chosen.name)
    x = torch.randn(2, 1, size, size)[:1]
    made = methods.grad_cam(model, methods.Question(x, torch.zeros_like(x), 1, 0.01, 8))
    assert made.values.shape == (size, size) and made.values.min() >= 0


def test_transformers_have_every_map_but_grad_cam(subject: Make) -> None:
    model = backbones.build("timm:test_vit", classes=10, channels=1, size=160, seed=0).eval()
    expects = subject().expects.model_copy(update={"size": 160})
    explainer = Explainer(subject(model, expects=expects), CPU, share=0.05)
    one = explainer.explain(np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8), "noise")
    assert set(one.maps) == {"saliency", "integrated-gradients", "occlusion"}
    assert any("Grad-CAM" in note for note in explainer.notes)


def test_votes_of_neighbours_are_explained_by_occlusion_alone(subject: Make, digits, network: nn.Module) -> None:
    body = copy.deepcopy(network)
    features = backbones.embed(body, torch.cat([inputs(subject(), image)[0] for image in digits.images[:40]]))
    body.classifier = heads.Neighbours(features, torch.from_numpy(digits.labels[:40]), 5, 10)
    explainer = Explainer(subject(body.eval(), head=Knn()), CPU)
    one = explainer.explain(digits.images[0], "a digit")
    assert list(one.maps) == ["occlusion"] and np.abs(one.maps["occlusion"]).max() > 0
    assert any("occlusion" in note for note in explainer.notes)
    with pytest.raises(InputError, match="--method occlusion"):
        Explainer(subject(body, head=Knn()), CPU, ("saliency",))


def test_the_nearest_training_images_are_of_the_same_class(subject: Make, digits) -> None:
    steps: list[tuple[int, int]] = []
    nearest, why_not = nearest_or_why_not(subject(), CPU, lambda done, total: steps.append((done, total)))
    assert nearest is not None and not why_not
    train = digits.splits.train
    same = 0
    for image, label in zip(digits.images[:20], digits.labels):
        found = nearest.of(inputs(subject(), image)[0], 5)
        assert [one.distance for one in found] == sorted(one.distance for one in found) and len(found) == 5
        assert all(one.label == train.labels[one.index] for one in found)
        same += sum(one.label == label for one in found)
    assert same > 80
    itself = nearest.of(inputs(subject(), train.images[3])[0], 1)[0]
    assert itself.index == 3 and itself.distance < 1e-5
    assert itself.picture.content == train.images[3].tobytes()


def test_without_the_training_images_it_is_said_why(subject: Make, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))
    nearest, why_not = nearest_or_why_not(subject(), CPU)
    assert nearest is None and "data fetch mnist" in why_not and not list(tmp_path.rglob("*ubyte*"))


@settings(max_examples=25)
@given(arrays.arrays(np.float32, (5, 7), elements=st.floats(-1e3, 1e3, width=32)))
def test_values_of_a_map_survive_their_file(values: np.ndarray) -> None:
    largest, data = signed_bytes(values)
    read = np.array(Attribution(method="occlusion", height=5, width=7, largest=largest, data=data).rows)
    assert np.abs(read * (largest / 127) - values).max() <= largest / 127 * 0.51


@settings(max_examples=25)
@given(arrays.arrays(np.uint8, st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 70), st.integers(1, 70))))
def test_any_picture_has_a_small_form(picture: np.ndarray) -> None:
    small = raster(shrunk(picture, 32))
    assert max(small.height, small.width) <= 32 or max(picture.shape[1:]) <= 32
    assert small.channels == (3 if len(picture) == 3 else 1)
