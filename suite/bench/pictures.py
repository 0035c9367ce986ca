"""Benchmarks of a person's own pictures: decoding into the cache, and reading from it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from suite.bench.measure import Figure, timed

SIDE = 256  # pixels of the decoded pictures

COUNT = 600  # JPEG files of 640 x 480 pixels


def pictures(count: int = COUNT) -> Iterator[Figure]:
    """JPEG files decoded to 256 px: by Pillow's resizing in one thread, and by ours; then read from the cache."""
    import torch
    from PIL import Image

    from suite.data.inspection import in_parallel
    from suite.data.pictures import viewed
    from suite.data.rows import Rows
    from suite.hardware.device import cores
    from suite.spec import View

    view = View(SIDE, 3, "crop", 1.0, "bicubic", (0, 0, 0), None)
    with tempfile.TemporaryDirectory() as folder:
        files = list(_photos(Path(folder), count))

        def plain() -> None:
            for path in files:
                with Image.open(path) as image:
                    np.asarray(image.convert("RGB").resize((341, SIDE), Image.Resampling.BICUBIC))

        def ours() -> None:
            for _ in in_parallel(lambda path: viewed(path, view), files):
                pass

        ours()  # imports and warms up
        found = {"plain": timed(plain), "ours": timed(ours)}
        for name, seconds in found.items():
            how = "Pillow, one thread" if name == "plain" else f"{cores()} cores"
            yield f"pictures.decode.{name}", count / seconds, "images/s", f"{count} JPEG files of 640 x 480, {how}"
        yield "pictures.decode.ratio", found["plain"] / found["ours"], "x", "in turn"
        path = Path(folder, "rows.u8")
        with open(path, "wb") as file:
            for picture in in_parallel(lambda path: viewed(path, view), files):
                file.write(picture.data)
        rows = Rows(path, (3, SIDE, SIDE), np.arange(count, dtype=np.int64))
        order = np.random.default_rng(0).permutation(count)
        torch.set_num_threads(1)
        seconds = min(timed(lambda: [rows[order[i : i + 64]] for i in range(0, count, 64)]) for _ in range(5))
        yield (
            "pictures.read",
            count / seconds,
            "images/s",
            "one core, random batches of 64, in the page cache",
        )


def _photos(folder: Path, count: int) -> Iterator[Path]:
    """JPEG files of 640 x 480 pixels: parts of one smooth picture with noise, about 90 kB each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((1600, 1200), Image.Resampling.BICUBIC)).astype(np.int16)
    whole = Image.fromarray(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))
    for number in range(count):
        left, top = int(rng.integers(960)), int(rng.integers(720))
        path = folder / f"{number}.jpg"
        whole.crop((left, top, left + 640, top + 480)).save(path, quality=85)
        yield path
