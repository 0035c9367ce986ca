"""A convolutional network of a few thousand parameters, and what it shares with the suite's other networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F


class OwnNetwork(nn.Module):
    """What the suite's networks have in common: features by `forward_features`, scores by `forward_head`, and a linear
    `classifier` that can be replaced."""

    # Layers whose pretrained weights may have to be adapted, under the keys that timm's models use.
    pretrained_cfg: ClassVar[Mapping[str, str]] = {"first_conv": "stages.0.conv", "classifier": "classifier"}

    classifier: nn.Module
    num_features: int
    head_hidden_size: int

    def forward_features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The layer from features (B, D) to class scores."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier with a newly initialised one; with 0 classes the model returns its features."""
        new = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        like = next(self.parameters())
        self.classifier = new.to(like.device, like.dtype)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU: (B, C, H, W) to (B, width, H / stride, W / stride), rounded up."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class CompactCNN(OwnNetwork):
    """Convolutions, a weighted sum over each feature map, a linear classifier: (B, C, size, size) to (B, classes).

    The first convolution halves the image. The others have 3x3 kernels, at half the image's side before the pooling
    (`widths`) and at a quarter after it (`pooled`). Instead of a hidden layer, which would hold most of the
    parameters, a depthwise convolution as large as the feature map reduces each map to one number (the global depthwise
    convolution of MobileFaceNets, Chen et al., 2018, arXiv:1804.07573). Raises ValueError if the image is too small.
    """

    def __init__(self, classes: int, channels: int, size: int, *, widths: Sequence[int], pooled: Sequence[int]) -> None:
        super().__init__()
        self.in_chans = channels
        first, *others = widths
        self.stages = nn.Sequential(ConvNorm(channels, first, 5, stride=2))
        width = first
        for following in others:
            self.stages.append(ConvNorm(width, following, 3))
            width = following
        self.stages.append(nn.MaxPool2d(2))
        for following in pooled:
            self.stages.append(ConvNorm(width, following, 3))
            width = following
        side = (size + 1) // 2 // 2
        if side < 1:
            raise ValueError("the image is too small for its convolutions")
        self.summary = nn.Conv2d(width, width, side, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.classifier: nn.Module = nn.Linear(width, classes)
        # timm has two names for D: before its pooling layer and before its classifier.
        self.num_features = self.head_hidden_size = width

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to the feature maps of the last stage (B, D, H', W')."""
        return self.stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to class scores (B, classes), or to features (B, D) with `pre_logits`."""
        x = self.norm(self.summary(x)).flatten(1)
        return x if pre_logits else self.classifier(x)
