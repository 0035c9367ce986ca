"""Data sets: registry, cache, fetching, splits, folders of images, decoding."""
