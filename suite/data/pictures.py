"""Decoding of image files into arrays of a data set's form.

`load_square` serves data sets that are folders of images, `load_as` serves prediction. Both open files by `opened`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER_SIZE = 64  # pixels; the side to which the user's own images are resized

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # none that starts an interpreter, as EPS does

MAX_PIXELS = 50_000_000  # of one image; a larger one is refused as a possible decompression bomb

FOREGROUND = 64  # grey level, of 255, above which a pixel counts as a part of the glyph


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image]:
    """The image in a file, upright by its EXIF orientation. Pixels are decoded when they are first used.

    Whatever the decoder raises, in the body of the `with` statement too, becomes an InputError that names the file.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path} has {image.width} x {image.height} pixels; {MAX_PIXELS:,} is the most.")
            yield ImageOps.exif_transpose(image)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no image {path}.") from None
    except Exception as error:  # Pillow's decoders raise many types of exception on malformed files
        raise InputError(f"{path} cannot be read as an image: {error}.") from None


def flattened(image: Image, mode: str) -> Image:
    """The image on a white background, in the given mode ("L" or "RGB")."""
    from PIL import Image

    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)


def as_array(image: Image) -> np.ndarray:
    """(C, H, W) uint8 of an image in the mode "L" or "RGB"."""
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


# --- folders of images ----------------------------------------------------------------------------------------------


def load_square(path: Path, mode: str) -> np.ndarray:
    """The centre square of an image file, resized: (C, FOLDER_SIZE, FOLDER_SIZE) uint8. Raises InputError."""
    from PIL import Image, ImageOps

    with opened(path) as image:
        flat = flattened(_full_range_to_8_bit(image), mode)
        return as_array(ImageOps.fit(flat, (FOLDER_SIZE, FOLDER_SIZE), Image.Resampling.BICUBIC))


def _full_range_to_8_bit(image: Image) -> Image:
    """16-bit and floating-point grey as 8 bits. `Image.convert` would clip instead of scale.

    16-bit values are divided by 65535, floating-point values by their maximum.
    """
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image, dtype=np.float32)
    full = 65535.0 if image.mode[0] == "I" else max(1.0, float(values.max()))
    return Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8))


# --- prediction -----------------------------------------------------------------------------------------------------


def load_as(path: Path, *, channels: int, size: int, centred: bool) -> np.ndarray:
    """An image file in the form of a data set's images: (channels, size, size) uint8.

    RGB images are cropped to their centre square and resized. Grey data sets show light on dark: an image with a
    light border is inverted, and then, like a dark one of another size, cropped to what stands out and placed as the
    data set places it (see `_placed`). A dark image of the right size is returned as it is. Raises InputError.

    Args:
        path: the file, of one of FORMATS.
        channels: 1 or 3.
        size: the side of the data set's images in pixels.
        centred: whether glyphs are centred by their mass, as in MNIST.
    """
    from PIL import Image, ImageOps

    if path.exists() and not path.is_file():  # opening a pipe would block
        raise InputError(f"{path} is no plain file, so it is no image.")
    with opened(path) as decoded:
        image = flattened(_stretched_to_8_bit(decoded), "L" if channels == 1 else "RGB")
    if min(image.size) < 1:
        raise InputError(f"{path} is an empty image.")
    if channels != 1:
        return as_array(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        image = ImageOps.invert(image)
    elif image.size == (size, size):
        return as_array(image)
    return as_array(_placed(image, size, centred=centred))


def _stretched_to_8_bit(image: Image) -> Image:
    """16-bit and floating-point grey as 8 bits, divided by the maximum of the image."""
    from PIL import Image

    if image.mode not in ("I", "I;16", "F"):
        return image
    values = np.asarray(image, dtype=np.float32)
    return Image.fromarray((values / max(1.0, float(values.max())) * 255).astype(np.uint8))


def _placed(image: Image, size: int, *, centred: bool) -> Image:
    """The light part of a grey image on a black square of `size` pixels.

    Centred glyphs are scaled to a box of 20/28 of the side and placed with their centre of mass in the middle, as
    MNIST was made (LeCun et al., 1998, http://yann.lecun.com/exdb/mnist/). Other things fill the square.
    """
    from PIL import Image, ImageOps

    image = ImageOps.autocontrast(image)
    pixels = np.asarray(image).astype(np.float32)
    rows, columns = np.nonzero(pixels > FOREGROUND)
    canvas = Image.new("L", (size, size))
    if len(rows) == 0:
        return canvas
    crop = image.crop((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    box = round(size * 20 / 28) if centred else size
    scale = box / max(crop.size)
    width, height = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    crop = crop.resize((width, height), Image.Resampling.LANCZOS)
    x, y = (size - width) / 2, (size - height) / 2
    if centred:
        mass = np.asarray(crop).astype(np.float32)
        total = float(mass.sum()) or 1.0
        x = size / 2 - float((mass.sum(0) * (np.arange(width) + 0.5)).sum()) / total
        y = size / 2 - float((mass.sum(1) * (np.arange(height) + 0.5)).sum()) / total
    canvas.paste(crop, (round(min(max(x, 0), size - width)), round(min(max(y, 0), size - height))))
    return canvas
