"""Pretrain, fine-tune, search and compare small vision models."""
