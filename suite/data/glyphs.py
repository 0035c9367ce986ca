"""Pictures of glyphs in the form of MNIST and its relatives: light on dark, scaled and centred alike.

`place` finds the ink in a photo, a scan or a drawing. A picture that has the data set's form already stays as it is, so
that the same step can stand before training and before prediction.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from suite.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

WORKING = 256  # pixels; the longest side of the reduced copy on which ink is sought
FINE = 96  # pixels; a glyph that is smaller on the reduced copy is sought again, larger
COARSE = 16  # cells a side of the grid on which ground and light are estimated
REACH = 5  # cells around one whose median is its ground
SPAN = 0.35  # of the picture's side; a structure that is wider than this is ground, a narrower one is ink
DARK = 16  # grey level up to which a pixel counts as dark ground
BRIGHT = 128  # grey level that a glyph in form reaches somewhere; all of the data sets' reach 250
DARKEST_LIGHT = 24.0  # grey levels added to the light, so that black ground divides nothing by zero
LEAST = 0.08  # contrast, as a part of the light; a fainter one is no ink
FAINTEST = 16.0  # grey levels; a lower contrast is no ink
SIGMAS = 7.0  # of the ground's noise; 65,000 normal values hardly ever exceed 5
OVERSAMPLED = 4  # strokes are measured and widened at this multiple of the final size
HUGGING = 1.5  # length at the border over root of area, above which a part is a frame or a table's edge, no stroke
SPECK = 0.03  # of the largest part's area; smaller parts are dust
SMALLEST = 4  # pixels; a smaller thing is no legible glyph
MOST_PARTS = 8  # noise has many parts, a glyph has few
THINNEST = 1.7 / 28  # of the side; 5 % of MNIST's digits have thinner strokes

# Grey levels as bytes
GROUND = bytes(range(DARK + 1))
NOT_BRIGHT = bytes(range(BRIGHT))
NO_INK = bytes(range(DARK // 2 + 1))
ABOVE_NO_INK = bytes(max(level - DARK // 2, 0) for level in range(256))  # a table


class Blank(InputError):
    """Nothing in the picture stands out from its ground."""


class _Ink(NamedTuple):
    strength: np.ndarray  # (h, w) float32, 0 for ground, about 1 for ink; cropped to the glyph
    box: tuple[float, float, float, float]  # left, top, right, bottom of the glyph, in parts of the picture's sides


def place(image: Image, size: int, *, centred: bool) -> np.ndarray:
    """A picture of one glyph in the form of a data set's images: (size, size) uint8, light on dark.

    A picture in that form already is returned unchanged. Otherwise centred glyphs are scaled to a box of 20/28 of the
    side and placed with their centre of mass in the middle, as MNIST was made (LeCun et al., 1998,
    http://yann.lecun.com/exdb/mnist/). Other things fill the square, as in Fashion-MNIST (arXiv:1708.07747).

    Args:
        image: upright, 8 bits a channel, in mode L, LA, RGB or RGBA.
        size: the side of the data set's images in pixels.
        centred: whether glyphs are centred by their mass, as in MNIST.

    Raises:
        Blank: nothing stands out.
    """
    if image.size == (size, size):
        grey = _grey(image)
        if grey is not None:
            for pixels in (grey, 255 - grey):
                if _in_form(pixels, centred=centred):
                    return pixels
    ink = _find(image, centred=centred)
    if ink is None:
        raise Blank("Nothing stands out in this picture: it is blank, or too faint to tell from noise.")
    return arranged(ink.strength, size, centred=centred)


# --- pictures in form -----------------------------------------------------------------------------------------------


def _grey(image: Image) -> np.ndarray | None:
    """(H, W) uint8 of a picture that has one channel in truth: grey, opaque colour without colours, or alpha alone."""
    channels = np.asarray(image)
    if channels.ndim == 2:
        return channels
    colours, alpha = channels[..., :3], channels[..., -1]
    if image.mode in ("LA", "RGBA"):
        colours = channels[..., :-1]
        shown = colours[alpha > 0]
        if len(shown) and (shown == shown[0]).all() and alpha.min() < alpha.max():
            return alpha
        if alpha.min() < 255:
            return None
    return colours[..., 0] if (colours == colours[..., :1]).all() else None


def _in_form(pixels: np.ndarray, *, centred: bool) -> bool:
    """Whether a square grey picture has dark ground and its glyph where the data sets have theirs.

    The tolerances hold for all of MNIST (box of 20 px, centre of mass in the middle) and Fashion-MNIST (fills the
    square), and allow for glyphs centred by their box (EMNIST) and those that fill the frame (KMNIST, USPS).
    """
    size = len(pixels)
    rows, columns = pixels.tobytes(), pixels.T.tobytes()  # bytes are counted faster than arrays as small as these
    border = rows[:size] + rows[-size:] + rows[size:-size:size] + rows[2 * size - 1 : -size : size]
    if len(border) - len(border.translate(None, GROUND)) <= len(border) // 4:
        return False
    bright = len(rows.translate(None, NOT_BRIGHT))
    if not 0 < bright <= (0.5 if centred else 1) * pixels.size:
        return False
    extents = []  # first and last pixel of the glyph, down and across
    for along in (rows, columns):
        first, end = len(along) - len(along.lstrip(NO_INK)), len(along.rstrip(NO_INK))
        extents.append((first // size, (end - 1) // size + 1))
    side = max(last - first for first, last in extents)
    if side >= 0.85 * size:
        return True
    if not centred or side < 0.6 * size:
        return False
    mass = np.frombuffer(rows.translate(ABOVE_NO_INK), np.uint8).astype(np.float64)
    total, *moments = (mass @ _weights(size)).tolist()
    off_mass = max(abs(moment / total - size / 2) for moment in moments)
    off_box = max(abs((first + last) / 2 - size / 2) for first, last in extents)
    return min(off_mass, off_box) <= 0.06 * size


@lru_cache(8)
def _weights(size: int) -> np.ndarray:
    """(size * size, 3): 1, and the centre of each pixel down and across."""
    down, across = np.mgrid[0.5:size, 0.5:size]
    return np.stack([np.ones(size * size), down.ravel(), across.ravel()], 1)


# --- finding the ink ------------------------------------------------------------------------------------------------


def _find(image: Image, *, centred: bool) -> _Ink | None:
    """The ink of a picture; None where nothing stands out. A small glyph on a large picture is looked at twice."""
    factor = -(-max(image.size) // WORKING)
    reduced = image.reduce(factor) if factor > 1 else image
    ink = _ink(_channels(reduced), centred=centred)
    if ink is None or factor == 1 or max(ink.strength.shape) >= FINE:
        return ink
    left, top, right, bottom = ink.box
    width, height = image.size
    margin = max((right - left) * width, (bottom - top) * height) / 2
    crop = image.crop(
        (
            max(0, round(left * width - margin)),
            max(0, round(top * height - margin)),
            min(width, round(right * width + margin)),
            min(height, round(bottom * height + margin)),
        )
    )
    return (_find(crop, centred=centred) if max(crop.size) <= max(image.size) * 0.7 else None) or ink


def _channels(image: Image) -> np.ndarray:
    """(H, W, C) float32: grey or colours, and alpha where it varies.

    What transparent pixels hide gets the mean colour of what is seen, so that it adds no contrast of its own.
    """
    channels = np.asarray(image, dtype=np.float32)
    if channels.ndim == 2:
        return channels[..., None]
    if image.mode not in ("LA", "RGBA"):
        return channels
    colours, alpha = channels[..., :-1], channels[..., -1:]
    if alpha.min() == alpha.max():
        return colours if alpha.max() > 0 else np.zeros_like(alpha)
    seen = alpha / 255
    mean = (colours * seen).sum((0, 1)) / seen.sum()
    return np.concatenate([colours * seen + mean * (1 - seen), alpha], axis=2)


def _ink(channels: np.ndarray, *, centred: bool) -> _Ink | None:
    """The ink in an array (H, W, C): how much every pixel differs from its ground, as a part of the light there."""
    height, width, _ = channels.shape
    coarse = _shrunk(channels)
    ground = _coarse_ground(coarse, centred=centred)
    direction = _direction(coarse - ground)
    grey = channels @ direction
    light = _enlarged(ground.mean(2), grey.shape)
    level = _enlarged(ground @ direction, grey.shape)
    if centred:
        fine = _opened(grey)  # the ground to the pixel: hard shadows and the table too
        light += (fine - level) * direction.mean()
        level = fine
    contrast = grey - level
    strength = contrast / (np.maximum(light, 0) + DARKEST_LIGHT)  # a shadow dims ink and ground alike
    # Noise may be the same everywhere, or grow with the light.
    contrast, noise = _levelled(contrast)
    strength, relative_noise = _levelled(strength)
    floor = max(LEAST, SIGMAS * relative_noise)
    strength[contrast < max(FAINTEST, SIGMAS * noise)] = 0
    above = strength[strength > floor]
    if not len(above):
        return None
    strong = _otsu(above)
    weak = max(floor, 0.65 * strong) if centred else floor  # a line's pale ends; all of a thing's greys
    mask = _components(strength >= weak, strength >= strong)
    if mask is None:
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    strength, mask = strength[top:bottom, left:right], mask[top:bottom, left:right]
    peak = float(np.percentile(strength[mask], 70 if centred else 99))
    if centred:  # the antialiased edges belong to the ink
        strength = np.where(ndimage.binary_dilation(mask, np.ones((3, 3))), strength, 0)
    strength = np.clip(strength / peak, 0, 1).astype(np.float32)
    return _Ink(strength, (left / width, top / height, right / width, bottom / height))


def _shrunk(channels: np.ndarray) -> np.ndarray:
    """(h, w, C) means of square cells, COARSE of them along the longer side."""
    height, width, _ = channels.shape
    cells = [min(length, -(-length * COARSE // max(height, width))) for length in (height, width)]
    rows, columns = (np.arange(n) * length // n for n, length in zip(cells, (height, width), strict=True))
    sums = np.add.reduceat(np.add.reduceat(channels, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    return sums / counts[..., None]


def _enlarged(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A grid of cells, interpolated bilinearly to (H, W[, C])."""
    for axis in (0, 1):
        cells, length = grid.shape[axis], shape[axis]
        at = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
        below = np.minimum(at.astype(int), max(0, cells - 2))
        part = (at - below).astype(np.float32)
        part = part.reshape((-1,) + (1,) * (grid.ndim - axis - 1))
        grid = grid.take(below, axis) * (1 - part) + grid.take(np.minimum(below + 1, cells - 1), axis) * part
    return grid


def _coarse_ground(coarse: np.ndarray, *, centred: bool) -> np.ndarray:
    """The ground in each cell: (h, w, C).

    Ink covers less than half of a large window, so the window's median is the ground. What lies at the border goes on
    beyond it: there the ground reaches the border and ink seldom does. A thing that fills the picture leaves ground at
    the border alone.
    """
    if not centred:
        return _plane(coarse)
    reach = REACH
    padded = np.pad(coarse, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), (0, 1))
    return np.median(windows.reshape(*coarse.shape, -1), -1)


def _plane(coarse: np.ndarray) -> np.ndarray:
    """The plane through the cells at the border, by least absolute deviations: (h, w, C)."""
    height, width, count = coarse.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y], -1).reshape(-1, 3)
    border = (np.maximum(abs(x), abs(y)) > 1 - 1e-6).ravel()
    levels = coarse.reshape(-1, count)
    planes = []
    for channel in range(count):
        weights, plane = np.ones(border.sum()), np.zeros(3)
        for _ in range(10):
            scaled = terms[border] * weights[:, None]
            plane = np.linalg.lstsq(scaled, levels[border, channel] * weights, rcond=None)[0]
            weights = 1 / np.sqrt(np.maximum(abs(levels[border, channel] - terms[border] @ plane), 1))
        planes.append((terms @ plane).reshape(height, width))
    return np.stack(planes, -1)


def _direction(deviation: np.ndarray) -> np.ndarray:
    """(C,) float32 of length 1: from the colour of the ground to the colour of the ink.

    Frames, tables and fingers lie at the border, so a cell counts more the nearer it is to the middle.
    """
    height, width, count = deviation.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])[..., None]
    vectors = (deviation * window).reshape(-1, count)
    direction = np.linalg.eigh(vectors.T @ vectors)[1][:, -1]
    along = vectors @ direction
    return (direction if (along**3).sum() >= 0 else -direction).astype(np.float32)


def _opened(contrast: np.ndarray) -> np.ndarray:
    """What is wide, without what is narrow and light: (H, W).

    A square that is wider than strokes fits anywhere on the ground, on both sides of a shadow's edge too. It may lie
    half outside the picture, where the border goes on.
    """
    span = max(3, round(SPAN * max(contrast.shape)))
    margin = span // 2 + 1
    opened = ndimage.grey_opening(np.pad(contrast, margin, mode="edge"), (span, span))
    return opened[margin:-margin, margin:-margin]


def _levelled(values: np.ndarray) -> tuple[np.ndarray, float]:
    """The values less those of the ground, and the standard deviation of the ground's noise.

    It is the larger of two estimates: from neighbours, and from quantiles, which sees coarse noise. Both stay with the
    ground where ink covers more than half of the picture.
    """
    low, typical = np.percentile(values, (5, 25))  # 0.97 standard deviations apart in normal noise
    steps = [float(np.median(np.abs(np.diff(values, axis=axis)))) for axis in (0, 1) if values.shape[axis] > 1]
    return values - typical, max(float(typical - low) / 0.97, 1.4826 / np.sqrt(2) * max(steps, default=0.0))


def _otsu(values: np.ndarray) -> float:
    """The threshold that splits the values into the two most distinct classes (Otsu, 1979,
    https://doi.org/10.1109/TSMC.1979.4310076). Faint lines of ruled paper are one, ink or its core the other.
    """
    if values.min() == values.max():
        return float(values.min())
    counts, edges = np.histogram(values, 64)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * middles)
    above = len(values) - below
    between = (sums[:-1] * len(values) - below * sums[-1]) ** 2 / np.maximum(below * above, 1)
    return float(edges[1 + between.argmax()])


def _components(weak: np.ndarray, strong: np.ndarray) -> np.ndarray | None:
    """The parts of the ink: connected pixels of `weak` that hold `strong` ones, without specks and frames.

    None where they are no glyph: too small, too many, or a shadow's corner.
    """
    labels = np.zeros(weak.shape, np.int32)
    ndimage.label(weak, np.ones((3, 3)), output=labels)
    count = int(labels.max())
    areas = np.bincount(labels[strong], minlength=count + 1)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    framing = np.bincount(border, minlength=count + 1) > HUGGING * np.sqrt(areas)
    inside = np.where(framing, 0, areas)
    close = inside.max() < SPECK * areas.max()  # at most the glyph of a close crop, which reaches the border
    kept = np.arange(count + 1) == areas.argmax() if close else inside >= max(1, SPECK * inside.max())
    if not areas.any() or kept.sum() > MOST_PARTS:
        return None
    mask = kept[labels]
    spans = [np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (1, 0)]
    if max(spans) < SMALLEST or (close and min(np.divide(spans, mask.shape)) < 0.8):
        return None
    return mask


# --- placing it -----------------------------------------------------------------------------------------------------


def arranged(strength: np.ndarray, size: int, *, centred: bool) -> np.ndarray:
    """The ink on a dark square."""
    box = round(size * 20 / 28) if centred else size
    if centred:
        large = _stretched(_resized(strength, box * OVERSAMPLED))
        strength = _widened(large, THINNEST * size * OVERSAMPLED)
    glyph = _stretched(_resized(strength, box))
    corner = []
    for axis, length in enumerate(glyph.shape):
        middle = length / 2
        if centred:
            middle = float((glyph.sum(1 - axis) * (np.arange(length) + 0.5)).sum() / glyph.sum())
        corner.append(round(min(max(size / 2 - middle, 0), size - length)))
    canvas = np.zeros((size, size), np.uint8)
    y, x = corner
    canvas[y : y + glyph.shape[0], x : x + glyph.shape[1]] = (glyph * 255).round()
    return canvas


def _resized(values: np.ndarray, longest: int) -> np.ndarray:
    """The values at another size, antialiased; the longer side is given."""
    from PIL import Image

    height, width = values.shape
    scale = longest / max(height, width)
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.clip(np.asarray(Image.fromarray(values).resize(to, Image.Resampling.BICUBIC)), 0, 1)


def _stretched(strength: np.ndarray) -> np.ndarray:
    """The values from 0 to 1, such that most of what is lit reaches 1: making lines small has made them faint."""
    return np.clip(strength / np.percentile(strength[strength > strength.max() / 4], 80), 0, 1)


def _widened(strength: np.ndarray, thinnest: float) -> np.ndarray:
    """Strokes at least `thinnest` pixels wide: a fine line, made small, would fade away instead."""
    inside = np.pad(strength > 0.5, 1)
    distance = np.zeros(inside.shape)
    ndimage.distance_transform_edt(inside, distances=distance)
    ridge = (distance > 0) & (distance == ndimage.maximum_filter(distance, 3))
    if not ridge.any():
        return strength
    width = 2 * float(np.median(distance[ridge])) - 1
    reach = round((thinnest - width) / 2)
    if reach < 1:
        return strength
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return ndimage.grey_dilation(np.pad(strength, reach), footprint=x * x + y * y <= (reach + 0.5) ** 2)
