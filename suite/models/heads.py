"""Heads on frozen features (N, D): learned by gradient, solved in closed form, or looked up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.spec import HeadSpec, Knn, Linear, Logreg, Mlp, Ridge


class Standardize(nn.Module):
    """(x - mean) / std with the training features' figures; constant features become zero.

    A feature that hardly varies is not blown up: its deviation counts as a tenth of the average one at least.
    Folded into a classifier, anything larger would make the first steps of fine-tuning diverge.
    """

    mean: Tensor
    gain: Tensor

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
    """Mean and standard deviation (D,) of each feature; in parts that fit a cache, where `Tensor.std` takes thrice as
    long for a large bank."""
    mean = features.mean(0)
    squares = torch.zeros_like(mean)
    for part in features.split(512):
        deviation = part - mean
        squares += (deviation * deviation).sum(0)
    return mean, (squares / max(1, len(features) - 1)).sqrt()


class Head(nn.Module):
    """Standardised features to class scores, (B, D) -> (B, classes)."""

    def __init__(self, standardize: Standardize, body: nn.Sequential) -> None:
        super().__init__()
        self.standardize = standardize
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.standardize(x))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The same function with the standardisation worked into the first layer: what an export carries."""
        first = self.body[0]
        assert isinstance(first, nn.Linear)
        mean, gain = self.standardize.mean, self.standardize.gain
        merged = nn.Linear(first.in_features, first.out_features)
        merged.weight.copy_(first.weight * gain)
        merged.bias.copy_(first.bias - first.weight @ (mean * gain))
        return nn.Sequential(merged, *self.body[1:]) if len(self.body) > 1 else merged


class Neighbours(nn.Module):
    """k nearest neighbours by cosine similarity, weighted by it; scores are log vote shares.

    Votes use the temperature of Wu et al., 2018 (arXiv:1805.01978), 0.07.
    """

    bank: Tensor
    labels: Tensor

    def __init__(self, features: Tensor, labels: Tensor, k: int, classes: int) -> None:
        super().__init__()
        self.standardize = Standardize(features)
        self.register_buffer("bank", F.normalize(self.standardize(features), dim=1))
        self.register_buffer("labels", labels)
        self.k, self.classes = min(k, len(features)), classes

    def forward(self, x: Tensor) -> Tensor:
        similarity = F.normalize(self.standardize(x.float()), dim=1) @ self.bank.T
        value, index = similarity.topk(self.k, dim=1)
        weight = (value / 0.07).softmax(1)
        votes = weight.new_zeros(x.shape[0], self.classes).scatter_add(1, self.labels[index], weight)
        return votes.clamp_min(1e-8).log()


def by_gradient(spec: HeadSpec) -> bool:
    return isinstance(spec, Linear | Mlp)


def make(spec: HeadSpec, features: Tensor, classes: int, seed: int) -> Head:
    """A trainable head; a linear one starts at zero, so that its seed decides the order of the data alone."""
    size = features.shape[1]
    if isinstance(spec, Mlp):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Linear(size, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, classes))
    else:
        layer = nn.Linear(size, classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        body = nn.Sequential(layer)
    return Head(Standardize(features), body.to(features.device))


def solve(spec: HeadSpec, features: Tensor, labels: Tensor, classes: int) -> tuple[Head | Neighbours, int]:
    """A head that needs no steps: ridge regression, logistic regression by L-BFGS, or nearest neighbours.

    Also the FLOPs per training image that it took: ridge regression's two products; for logistic regression one
    product forward and one back for every iteration, which leaves out what its line search tried in vain.
    """
    if isinstance(spec, Knn):
        return Neighbours(features, labels, spec.k, classes), 0
    size, standardize = features.shape[1], Standardize(features)
    if isinstance(spec, Ridge):
        weight, bias = _ridge(standardize(features), labels, classes, spec.l2)
        flops = 2 * size * (size + classes)
    elif isinstance(spec, Logreg):
        weight, bias, products = _logreg(standardize(features), labels, classes, spec.c)
        flops = 2 * 2 * size * products  # forward and back
    else:
        raise InputError(f"A {spec.kind} head is trained, not solved.")
    layer = nn.Linear(size, classes)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return Head(standardize, nn.Sequential(layer.to(features.device))), flops


def _ridge(x: Tensor, labels: Tensor, classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """min |x w - y|^2 / n + l2 / D |w|^2 on centred one-hot targets, in float64; scores are scaled by ten
    so that a softmax over them is a sensible probability."""
    count, size = x.shape
    target = F.one_hot(labels, classes).double()
    centre = target.mean(0)
    x64 = x.double()
    gram = x64.T @ x64 / count + l2 / size * torch.eye(size, dtype=torch.float64, device=x.device)
    weight = torch.linalg.solve(gram, x64.T @ (target - centre) / count)
    return 10 * weight.T.float(), 10 * centre.float()


def _logreg(x: Tensor, labels: Tensor, classes: int, c: float) -> tuple[Tensor, Tensor, int]:
    """Weight (classes, D), bias (classes,), and how many products of all images with one weight vector it took."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=c, max_iter=200, tol=1e-3).fit(x.cpu().numpy(), labels.cpu().numpy())
    weight = torch.zeros(classes, x.shape[1])
    bias = torch.full((classes,), -1e3)  # a class without a training image is never predicted
    found = torch.as_tensor(model.classes_)
    coefficients, intercept = torch.as_tensor(model.coef_).float(), torch.as_tensor(model.intercept_).float()
    if len(found) == 2:  # scikit-learn keeps one row for two classes
        coefficients = torch.stack((-coefficients[0] / 2, coefficients[0] / 2))
        intercept = torch.stack((-intercept[0] / 2, intercept[0] / 2))
    weight[found], bias[found] = coefficients, intercept
    return weight, bias, len(model.coef_) * (int(model.n_iter_.max()) + 1)  # one before the first iteration
