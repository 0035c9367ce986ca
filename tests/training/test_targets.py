"""What a step learns from: mixed images with the weights of both labels, and classes of equal weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from suite.spec import Augment
from suite.training.targets import (
    balanced_order,
    class_weights,
    image_losses,
    mean_loss,
    mixed,
    partners,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, size: int = 32) -> torch.Tensor:
    """Images (count, 3, size, size), all pixels of each of which are its number."""
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 3, size, size)


def test_cutmix_weighs_a_label_by_exactly_the_pixels_of_its_image() -> None:
    images = numbered(200)
    made, share = mixed(images, Augment(cutmix=1.0), seeded(0))
    own = (made == images).float().mean((1, 2, 3))
    assert torch.equal(own, share)
    assert ((made == images) | (made == partners(images))).all()
    assert share.std() > 0.1 and len(set(share.tolist())) > 100  # each image has its own rectangle
    pasted = (made != images)[:, 0]
    for mask in pasted:  # a rectangle: every covered row is covered in the same columns
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])


def test_mixup_averages_both_images_by_the_weights_of_their_labels() -> None:
    images = numbered(200)
    made, share = mixed(images, Augment(mixup=0.8), seeded(0))
    expected = share.view(-1, 1, 1, 1) * images + (1 - share.view(-1, 1, 1, 1)) * partners(images)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-5)
    assert len(set(share.tolist())) > 150


def test_with_both_on_each_image_draws_one_of_them() -> None:
    images = numbered(400)
    made, share = mixed(images, Augment(mixup=1.0, cutmix=1.0), seeded(2))
    constant = (made == made[..., :1, :1]).flatten(1).all(1)  # averaged: all pixels alike
    assert 120 < constant.sum() < 280
    again, _ = mixed(images, Augment(mixup=1.0, cutmix=1.0), seeded(2))
    assert torch.equal(made, again)
    own = (made[~constant] == images[~constant]).float().mean((1, 2, 3))
    assert torch.equal(own, share[~constant])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_the_share_of_mixup_follows_a_beta_distribution(alpha: float) -> None:
    _, share = mixed(numbered(4000, 2), Augment(mixup=alpha), seeded(1))
    for bound in (0.01, 0.1, 0.3, 0.5, 0.9, 0.99):
        assert (share <= bound).float().mean().item() == pytest.approx(stats.beta(alpha, alpha).cdf(bound), abs=0.03)


def test_the_loss_of_mixed_images_is_that_of_soft_labels_with_smoothing() -> None:
    generator = seeded(0)
    scores, share = torch.randn(16, 5, generator=generator), torch.rand(16, generator=generator)
    labels = torch.randint(0, 5, (16,), generator=generator)
    others = partners(labels)
    targets = (labels, others, torch.stack((share, 1 - share), 1))
    soft = share[:, None] * F.one_hot(labels, 5) + (1 - share)[:, None] * F.one_hot(others, 5)
    expected = F.cross_entropy(scores, soft, label_smoothing=0.1)
    torch.testing.assert_close(mean_loss(scores, targets, 0.1), expected)
    torch.testing.assert_close(image_losses(scores, targets, 0.1).mean(), expected)
    assert torch.equal(mean_loss(scores, (labels,), 0.1), F.cross_entropy(scores, labels, label_smoothing=0.1))


def test_class_weights_give_each_class_the_same_part_of_the_loss() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [3] * 4)
    weights = class_weights(labels)
    assert weights[2] == 0
    assert (weights[labels]).mean() == pytest.approx(1)
    parts = [float(weights[c] * (labels == c).sum()) for c in (0, 1, 3)]
    assert parts == pytest.approx([64 / 3] * 3)


@settings(max_examples=60)
@given(counts=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any), seed=st.integers(0, 2**31))
def test_a_balanced_epoch_has_as_many_images_of_each_class(counts: list[int], seed: int) -> None:
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    order = balanced_order(labels, seed)
    assert len(order) == len(labels) and torch.equal(order, balanced_order(labels, seed))
    drawn = torch.bincount(labels[order], minlength=len(counts))
    of_present = drawn[torch.tensor(counts) > 0]
    assert of_present.max() - of_present.min() <= 1 and drawn.sum() == of_present.sum()
    uses = torch.bincount(order, minlength=len(labels))
    for c in range(len(counts)):
        own = uses[labels == c]
        assert not len(own) or own.max() - own.min() <= 1  # images of a class are used equally often


def test_balanced_epochs_differ_and_are_shuffled() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    first, second = balanced_order(labels, 1), balanced_order(labels, 2)
    assert not torch.equal(first.sort().values, second.sort().values)  # other images of the larger class
    halves = labels[first].view(2, 50).sum(1)
    assert (halves > 10).all()
