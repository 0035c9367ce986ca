"""Backbones, heads, strategies, pretrained weights, preprocessing, frozen features."""
