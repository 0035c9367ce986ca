"""Decoding of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from suite.errors import InputError

FOLDER_SIZE = 64  # pixels; what a person's own images are brought to

PICTURES = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # not those that bring an interpreter along, as EPS does

MAX_PIXELS = 50_000_000  # of one image; a larger one is taken for a decompression bomb


def load_picture(path: Path, mode: str) -> np.ndarray:
    """(C, FOLDER_SIZE, FOLDER_SIZE) uint8: the middle square of the image, on white. Raises InputError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=PICTURES) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path} has {image.width} x {image.height} pixels; {MAX_PIXELS:,} is the most.")
            upright: Image.Image = ImageOps.exif_transpose(image)
            if upright.mode[0] in "IF":  # 16-bit grey, which `convert` would cut off at 255, or floats
                values = np.asarray(upright, dtype=np.float32)
                full = 65535.0 if upright.mode[0] == "I" else max(1.0, float(values.max()))
                upright = Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8))
            if "A" in upright.mode or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            fitted = ImageOps.fit(upright.convert(mode), (FOLDER_SIZE, FOLDER_SIZE), Image.Resampling.BICUBIC)
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise InputError(f"{path} cannot be read as an image: {error}.") from None
    pixels = np.asarray(fitted)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
