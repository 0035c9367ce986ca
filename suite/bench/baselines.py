"""The plain alternatives that the benchmarks measure: the tutorial's loop, and the usual ones around timm and Optuna.

They are written as tutorials write them, with a DataLoader, transforms image by image, float32 and nothing tuned. They
must stay so, or ratios of different versions of the suite are not comparable.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from suite.data.cache import data_dir


class Tutorial(nn.Module):
    """The tutorial's CNN: (B, 1, 28, 28) -> logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(3136, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def mnist(*, train: bool, size: int | None = None) -> datasets.MNIST:
    """MNIST as torchvision reads it, normalised, and resized to `size` pixels where that is given."""
    steps: list[Any] = [] if size is None else [transforms.Resize(size)]
    steps += [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    return datasets.MNIST(data_dir(), train=train, transform=transforms.Compose(steps))


def loader(images: Dataset[Any], indices: Any, batch_size: int = 64) -> DataLoader[Any]:
    """A shuffling DataLoader of some of the images."""
    return DataLoader(Subset(images, list(indices)), batch_size=batch_size, shuffle=True)


def train_epoch(
    net: nn.Module, batches: DataLoader[Any], optimizer: torch.optim.Optimizer, place: torch.device
) -> None:
    """One pass over the images."""
    net.train()
    for images, labels in batches:
        images, labels = images.to(place), labels.to(place)
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(net: nn.Module, batches: DataLoader[Any], place: torch.device) -> float:
    """The share of images that the model classifies correctly, in 0..1."""
    net.eval()
    right = total = 0
    for images, labels in batches:
        right += int((net(images.to(place)).argmax(1) == labels.to(place)).sum())
        total += len(labels)
    return right / total


def train_head(
    backbone: nn.Module, head: nn.Linear, batches: DataLoader[Any], place: torch.device, most: int
) -> tuple[int, float]:
    """Train a head for `most` batches on a frozen backbone, which is run for every batch: (images seen, seconds)."""
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
    backbone.eval()
    begin, seen = time.perf_counter(), 0
    for number, (images, labels) in enumerate(batches):
        if number == most:
            break
        with torch.no_grad():
            features = backbone(images.to(place))
        optimizer.zero_grad()
        F.cross_entropy(head(features), labels.to(place)).backward()
        optimizer.step()
        seen += len(labels)
    return seen, time.perf_counter() - begin


def objective(trial: Any, place: torch.device, train: Any, validation: Any) -> float:
    """The tutorial's script as an Optuna objective over lr, momentum and batch size; returns validation accuracy.

    `train` and `validation` are indices of the official training images.
    """
    lr = trial.suggest_float("lr", 1e-3, 0.3, log=True)
    momentum = trial.suggest_float("momentum", 0.5, 0.98)
    batch_size = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    images = mnist(train=True)
    net = Tutorial().to(place)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    for _ in range(2):
        train_epoch(net, loader(images, train, batch_size), optimizer, place)
    return accuracy(net, loader(images, validation, 1000), place)
