"""Heads: classifiers on frozen features (N, D).

A head is trained by gradient (linear, mlp), solved in closed form or by its own solver (ridge, logreg), or looks its
answers up (knn). To add one, add its model to `suite/spec/recipe.py` and an entry to `HEADS` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.spec import HeadSpec, Knn, Linear, Logreg, Mlp, Ridge

KNN_TEMPERATURE = 0.07  # of Wu et al., 2018


class Standardize(nn.Module):
    """(x - mean) / std of features (B, D), by the mean and standard deviation of the training features.

    Constant features become zero. The standard deviation of a feature counts as at least a tenth of the average one:
    a larger gain, once folded into a classifier's weights, makes the first steps of fine-tuning diverge.
    """

    mean: Tensor  # (D,)
    gain: Tensor  # (D,), 1 / std or 0

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        mean, std = statistics(features)
        floor = max(0.1 * std.mean().item(), 1e-6)
        gain = torch.where(std > 1e-6, 1 / std.clamp_min(floor), torch.zeros_like(std))
        self.register_buffer("mean", mean)
        self.register_buffer("gain", gain)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.gain


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of features (N, D).

    Computed in chunks that fit the CPU's cache; `Tensor.std` takes three times as long for many features.
    """
    mean = features.mean(0)
    squares = torch.zeros_like(mean)
    for part in features.split(512):
        deviation = part - mean
        squares += (deviation * deviation).sum(0)
    return mean, (squares / max(1, len(features) - 1)).sqrt()


class Head(nn.Module):
    """Layers on standardised features: (B, D) to class scores (B, classes). The first layer is linear."""

    def __init__(self, standardize: Standardize, body: nn.Sequential) -> None:
        super().__init__()
        self.standardize = standardize
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.standardize(x))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The same function without a standardisation, which is folded into the first layer's weights.

        The form that an export contains: one linear layer, or a Sequential of several layers.
        """
        first = self.body[0]
        assert isinstance(first, nn.Linear)
        mean, gain = self.standardize.mean, self.standardize.gain
        merged = nn.Linear(first.in_features, first.out_features, device=first.weight.device)
        merged.weight.copy_(first.weight * gain)
        merged.bias.copy_(first.bias - first.weight @ (mean * gain))
        return nn.Sequential(merged, *self.body[1:]) if len(self.body) > 1 else merged


class Neighbours(nn.Module):
    """k nearest neighbours by cosine similarity: (B, D) to the logarithms of the classes' vote shares (B, classes).

    Votes are weighted by softmax(similarity / 0.07) over the k neighbours, after Wu et al., 2018 (arXiv:1805.01978).
    """

    bank: Tensor  # (N, D), standardised training features of unit length
    labels: Tensor  # (N,)

    def __init__(self, features: Tensor, labels: Tensor, k: int, classes: int) -> None:
        super().__init__()
        self.standardize = Standardize(features)
        self.register_buffer("bank", F.normalize(self.standardize(features), dim=1))
        self.register_buffer("labels", labels)
        self.k, self.classes = min(k, len(features)), classes

    def forward(self, x: Tensor) -> Tensor:
        similarity = F.normalize(self.standardize(x.float()), dim=1) @ self.bank.T
        value, index = similarity.topk(self.k, dim=1)
        weight = (value / KNN_TEMPERATURE).softmax(1)
        votes = weight.new_zeros(x.shape[0], self.classes).scatter_add(1, self.labels[index], weight)
        return votes.clamp_min(1e-8).log()

    @classmethod
    def empty(cls, tensors: dict[str, Tensor], k: int, classes: int) -> Neighbours:
        """One with the shapes of saved `tensors`, to be filled by load_state_dict.

        Raises KeyError or ValueError if the tensors are not those of a Neighbours for `classes` classes.
        """
        bank, labels = tensors["bank"], tensors["labels"]
        if not len(labels) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError("the labels of the neighbours are not among the classes")
        return cls(torch.zeros_like(bank), torch.zeros(len(bank), dtype=torch.long), k, classes)


AnyHead = Head | Neighbours


@dataclass(frozen=True)
class HeadKind:
    """How heads of one kind are made.

    layers: from (spec, D, classes) to the layers of a `Head`, of which the first is linear; None for `Neighbours`.
    solve: from (spec, features (N, D), labels (N,), classes) to the finished head and the FLOPs per training image
        that this took; None for heads that are trained by gradient, starting from the initial weights of `layers`.
    """

    layers: Callable[[Any, int, int], nn.Sequential] | None
    solve: Callable[[Any, Tensor, Tensor, int], tuple[AnyHead, int]] | None = None


def is_linear(spec: HeadSpec) -> bool:
    """Whether the finished head is one linear layer, which takes the place of the backbone's classifier."""
    return HEADS[type(spec)].layers is _linear


def by_gradient(spec: HeadSpec) -> bool:
    """Whether such a head is trained by gradient (`make`), as opposed to solved (`solve`)."""
    return HEADS[type(spec)].solve is None


def make(spec: HeadSpec, features: Tensor, classes: int, seed: int) -> Head:
    """A head to be trained on `features` (N, D). Initial weights depend on `seed` alone.

    The global random generators are left unchanged. Raises InputError for a head without layers.
    """
    layers = HEADS[type(spec)].layers
    if layers is None:
        raise InputError(f"A {spec.kind} head has no weights to train.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = layers(spec, features.shape[1], classes)
    return Head(Standardize(features), body.to(features.device))


def solve(spec: HeadSpec, features: Tensor, labels: Tensor, classes: int) -> tuple[AnyHead, int]:
    """Fit a head to `features` (N, D) and `labels` (N,) without gradient steps.

    Returns the head and the FLOPs per training image that this took. Raises InputError for a head that is trained.
    """
    solver = HEADS[type(spec)].solve
    if solver is None:
        raise InputError(f"A {spec.kind} head is trained, not solved.")
    return solver(spec, features, labels, classes)


def restore(spec: HeadSpec, tensors: dict[str, Tensor], classes: int) -> AnyHead:
    """The head that `tensors`, the state dict of a `Head` or `Neighbours`, were saved from.

    Raises KeyError, ValueError or RuntimeError if they are not those of such a head.
    """
    if isinstance(spec, Knn):
        head: AnyHead = Neighbours.empty(tensors, spec.k, classes)
    else:
        head = make(spec, torch.zeros(2, tensors["standardize.mean"].numel()), classes, seed=0)
    head.load_state_dict(tensors)
    return head


def restore_folded(spec: HeadSpec, tensors: dict[str, Tensor], classes: int) -> nn.Module:
    """Like `restore`, from the tensors of an exported head: a `Head.folded`, or a `Neighbours`."""
    if isinstance(spec, Knn):
        return restore(spec, tensors, classes)
    layers = HEADS[type(spec)].layers
    assert layers is not None
    size = next(weight.shape[1] for name, weight in tensors.items() if name in ("weight", "0.weight"))
    body = layers(spec, size, classes)
    head = body if len(body) > 1 else body[0]
    head.load_state_dict(tensors)
    return head


def _linear(spec: HeadSpec, size: int, classes: int) -> nn.Sequential:
    """One layer that starts at zero, so that its seed decides the order of the data alone."""
    layer = nn.Linear(size, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def _mlp(spec: Mlp, size: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, classes))


def _solve_ridge(spec: Ridge, features: Tensor, labels: Tensor, classes: int) -> tuple[Head, int]:
    """Ridge regression on one-hot targets. Its FLOPs are two matrix products."""
    standardize, size = Standardize(features), features.shape[1]
    weight, bias = _ridge(standardize(features), labels, classes, spec.l2)
    return _linear_head(standardize, weight, bias), 2 * size * (size + classes)


def _solve_logreg(spec: Logreg, features: Tensor, labels: Tensor, classes: int) -> tuple[Head, int]:
    """Multinomial logistic regression by L-BFGS.

    Its FLOPs are one product forward and one back per iteration, without the rejected steps of its line search.
    """
    standardize = Standardize(features)
    weight, bias, products = _logreg(standardize(features), labels, classes, spec.c)
    return _linear_head(standardize, weight, bias), 2 * 2 * features.shape[1] * products


def _solve_knn(spec: Knn, features: Tensor, labels: Tensor, classes: int) -> tuple[Neighbours, int]:
    return Neighbours(features, labels, spec.k, classes), 0


HEADS: dict[type, HeadKind] = {
    Linear: HeadKind(_linear),
    Mlp: HeadKind(_mlp),
    Ridge: HeadKind(_linear, _solve_ridge),
    Logreg: HeadKind(_linear, _solve_logreg),
    Knn: HeadKind(None, _solve_knn),
}


@torch.no_grad()
def _linear_head(standardize: Standardize, weight: Tensor, bias: Tensor) -> Head:
    """A head of one linear layer with `weight` (classes, D) and `bias` (classes,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return Head(standardize, nn.Sequential(layer.to(standardize.mean.device)))


def _ridge(x: Tensor, labels: Tensor, classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """Weight (classes, D) and bias (classes,) that minimise |x w - y|^2 / N + l2 / D |w|^2, with y centred one-hot.

    Solved in float64. Scores are scaled by ten so that a softmax over them gives sensible probabilities.
    """
    count, size = x.shape
    target = F.one_hot(labels, classes).double()
    centre = target.mean(0)
    x64 = x.double()
    gram = x64.T @ x64 / count + l2 / size * torch.eye(size, dtype=torch.float64, device=x.device)
    weight = torch.linalg.solve(gram, x64.T @ (target - centre) / count)
    return 10 * weight.T.float(), 10 * centre.float()


def _logreg(x: Tensor, labels: Tensor, classes: int, c: float) -> tuple[Tensor, Tensor, int]:
    """Weight (classes, D), bias (classes,), and the number of products of all images with one weight vector."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=c, max_iter=200, tol=1e-3).fit(x.cpu().numpy(), labels.cpu().numpy())
    weight = torch.zeros(classes, x.shape[1])
    bias = torch.full((classes,), -1e3)  # a class without a training image is never predicted
    found = torch.as_tensor(model.classes_)
    coefficients, intercept = torch.as_tensor(model.coef_).float(), torch.as_tensor(model.intercept_).float()
    if len(found) == 2:  # scikit-learn has one row for two classes
        coefficients = torch.stack((-coefficients[0] / 2, coefficients[0] / 2))
        intercept = torch.stack((-intercept[0] / 2, intercept[0] / 2))
    weight[found], bias[found] = coefficients, intercept
    return weight, bias, len(model.coef_) * (int(model.n_iter_.max()) + 1)  # one evaluation before the first iteration
