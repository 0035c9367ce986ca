"""Decoding of image files. Training, evaluation, prediction and exports all read pictures here.

A file becomes an upright 8-bit image, then an array as a `View` describes it, or a placed glyph. What came over a
network takes the same way: a `Source` is a path, or the bytes of a file.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.errors import InputError
from suite.spec import Preprocess, View

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # none that starts an interpreter, as EPS does

MAX_PIXELS = 50_000_000  # of one decoded image; a larger one is refused as a possible decompression bomb

MAX_PIXELS_VARIABLE = "MNIST_SUITE_MAX_PIXELS"  # environment variable that sets another limit

SCALED_JPEG = 5  # times MAX_PIXELS: the limit for a JPEG that is decoded at a fraction of its size

LARGE = 4_000_000  # pixels; smaller JPEG files are decoded at full size, so that other programs see the same

REDUCED = 4  # a JPEG is decoded at 1/2, 1/4 or 1/8 where it keeps so many times the pixels a side that are needed

GLYPH_PIXELS = 512  # as `needed`: a glyph may be a small part of its picture

ORIENTATION = 0x0112  # tag of EXIF

Source = Path | bytes  # the path of an image file, or its bytes

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")  # of Pillow: grey values of more than 8 bits


class NoImage(InputError):
    """The bytes are those of no format in `FORMATS`."""


class TooLarge(InputError):
    """The image has too many pixels to be decoded."""


def max_pixels() -> int:
    """The largest number of pixels of one decoded image. Raises InputError for a value that is no number."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "").replace("_", "").replace(",", "")
    if text and not (text.isdecimal() and int(text) > 0):
        raise InputError(f"{MAX_PIXELS_VARIABLE} is {text[:40]!r}; it is a number of pixels, such as 200000000.")
    return int(text) if text else MAX_PIXELS


@contextlib.contextmanager
def opened(source: Source, *, needed: int | None = None, most: int | None = None) -> Iterator[Image]:
    """The image in a file. Pixels are decoded when they are first used, and lie as in the file, see `upright`.

    `needed` is the size in pixels to which the image will be reduced: large JPEG files are then decoded at a fraction
    of their size, which takes a fraction of the time and memory. `most` is the largest number of pixels, by default
    `max_pixels`.

    Whatever the decoder raises, in the body of the `with` statement too, becomes an InputError that names the file:
    TooLarge before anything is decoded, NoImage for bytes of another format.
    """
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the check below takes its place
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            _check_size(source, image, needed, most)
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no image {source}.") from None
    except UnidentifiedImageError:
        formats = f"it is none of {', '.join(FORMATS)}, or damaged"
        raise NoImage(f"{_name(source)} cannot be read as an image: {formats}.") from None
    except Exception as error:  # Pillow's decoders raise many types of exception on malformed files
        raise InputError(f"{_name(source)} cannot be read as an image: {error}.") from None


def _name(source: Source) -> str:
    return "The picture" if isinstance(source, bytes) else str(source)


def upright(image: Image) -> Image:
    """The image turned as its EXIF orientation says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image


def _check_size(source: Source, image: Image, needed: int | None, most: int | None) -> None:
    """Choose the scale at which a JPEG is decoded. Raises TooLarge, and InputError for an empty image."""
    width, height = image.size
    limit = most or max_pixels()
    if image.format == "JPEG" and needed is not None and LARGE < width * height <= SCALED_JPEG * limit:
        image.draft(None, (REDUCED * needed, REDUCED * needed))
    if image.width * image.height > limit:
        cure = f" Set {MAX_PIXELS_VARIABLE} to a larger number if you trust the file." if most is None else ""
        raise TooLarge(f"{_name(source)} has {width:,} x {height:,} pixels; {limit:,} are the most.{cure}")
    if min(image.size) < 1:
        raise InputError(f"{_name(source)} is an empty image.")


def check_plain(path: Path) -> None:
    """Raises InputError for a path that is neither missing nor a regular file: opening a pipe would block."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no plain file, so it is no image.")


def stored_picture(source: Source, expects: Preprocess, *, most: int | None = None) -> np.ndarray:
    """The picture in a file as a model's stored input: (channels, stored, stored) uint8.

    Raises InputError as `opened` does; for pictures of glyphs also `glyphs.Blank`, where nothing stands out.
    """
    if isinstance(source, Path):
        check_plain(source)
    if expects.placement is None:
        return viewed(source, expects.view(), most=most)
    with opened(source, needed=GLYPH_PIXELS, most=most) as image:
        try:
            return stored_image(upright(image), expects)
        except InputError as blank:
            raise type(blank)(f"{source}: {blank}" if isinstance(source, Path) else str(blank)) from None


def stored_image(image: Image, expects: Preprocess) -> np.ndarray:
    """An upright image as a model's stored input: (channels, stored, stored) uint8.

    Raises InputError for a picture of a glyph where nothing stands out.
    """
    view = expects.view()
    if expects.placement is None:
        return fitted(_pixels(_plain(image, view)), view)
    from suite.data import glyphs  # here, since SciPy takes long to import

    return glyphs.place(_8_bit(image, view.white), expects.stored, centred=expects.placement == "centred")[None]


def viewed(source: Source, view: View, *, most: int | None = None) -> np.ndarray:
    """The picture in a file as `view` describes it: (channels, side, side) uint8. Raises as `opened` does."""
    with opened(source, needed=view.scaled, most=most) as image:
        pixels = _plain_jpeg(source, image, view)
        return fitted(_pixels(_plain(upright(image), view)) if pixels is None else pixels, view)


def plain_picture(path: Path, view: View) -> Image:
    """The picture in a file at its own size, as a `View` and timm's transforms start from it.

    It is upright, in mode "L" or "RGB" and without transparency. Raises InputError.
    """
    with opened(path) as image:
        return _plain(upright(image), view)


def _plain(image: Image, view: View) -> Image:
    return flattened(_8_bit(image, view.white), "L" if view.channels == 1 else "RGB")


def _pixels(image: Image) -> np.ndarray:
    """(C, H, W) uint8, in channels-last memory."""
    return np.atleast_3d(np.array(image, dtype=np.uint8)).transpose(2, 0, 1)


def _plain_jpeg(source: Source, image: Image, view: View) -> np.ndarray | None:
    """(C, H, W) uint8 of an upright JPEG at full size by TorchCodec; None for other files, and without TorchCodec.

    It gives the same pixels as Pillow, and resizing them needs no copy: 1.4 times as fast as by way of Pillow.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    if not isinstance(image, JpegImageFile) or image.mode != ("L" if view.channels == 1 else "RGB"):
        return None
    if image.decoderconfig not in ((), (1, 0)) or image.getexif().get(ORIENTATION, 1) != 1:  # (scale, ...)
        return None
    decode = _jpeg_decoder()
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        return None if decode is None else decode(content, mode="GRAY" if view.channels == 1 else "RGB").numpy()
    except RuntimeError:  # Pillow says what is wrong
        return None


@cache
def _jpeg_decoder() -> Callable[..., Tensor] | None:
    """TorchCodec's decoder; None where its libraries cannot be loaded on this machine."""
    try:
        from torchcodec.decoders import decode_image  # type: ignore[attr-defined]
    except (ImportError, OSError, RuntimeError):
        return None
    return decode_image


def fitted(pixels: np.ndarray, view: View) -> np.ndarray:
    """Pixels (C, H, W) uint8 resized with antialias, then cropped or padded at their centre: (C, side, side) uint8.

    Channels-last memory is resized fastest.
    """
    height, width = pixels.shape[1:]
    size, side = _resized(height, width, view), view.side
    resized = pixels
    if size != (height, width):
        import torch
        from torch.nn import functional as F

        batch = torch.from_numpy(pixels)[None]
        batch = F.interpolate(batch, size=size, mode=view.interpolation, align_corners=False, antialias=True)
        resized = batch[0].numpy()
    if view.fit == "pad":
        canvas = np.empty((view.channels, side, side), np.uint8)
        canvas[:] = np.array(view.fill, np.uint8)[:, None, None]
        height, width = min(side, size[0]), min(side, size[1])
        top, left = (side - height) // 2, (side - width) // 2
        canvas[:, top : top + height, left : left + width] = _centre(resized, height, width)
        return canvas
    return np.ascontiguousarray(_centre(resized, side, side))


def _resized(height: int, width: int, view: View) -> tuple[int, int]:
    """(height, width) before the crop or the padding, rounded as torchvision's and timm's transforms do."""
    short, long = sorted((height, width))
    if view.fit == "squeeze":
        return view.scaled, view.scaled
    if view.fit == "pad":
        ratio = long / view.scaled
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    other = int(view.scaled * long / short)
    return (view.scaled, other) if height <= width else (other, view.scaled)


def _centre(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]


def flattened(image: Image, mode: str) -> Image:
    """The image without transparency, in the given mode ("L" or "RGB").

    The ground is white, or black where what is visible is light, so that white shapes do not vanish.
    """
    from PIL import Image

    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        visible = np.asarray(rgba.getchannel("A"), dtype=np.float64)
        light = float((np.asarray(rgba.convert("L")) * visible).sum()) > 200 * float(visible.sum())
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black" if light else "white"), rgba)
    return image.convert(mode)


def _8_bit(image: Image, white: float | None) -> Image:
    """16-bit and floating-point grey as 8 bits, with `white` as 255. `Image.convert` would clip instead of scale."""
    from PIL import Image

    if image.mode not in DEEP_MODES:
        return image
    values = np.asarray(image, dtype=np.float32)
    if white is None:
        white = 65535.0 if image.mode != "F" else max(1.0, float(values.max(initial=0)))
    return Image.fromarray((np.nan_to_num(np.clip(values / white, 0, 1)) * 255).round().astype(np.uint8))
