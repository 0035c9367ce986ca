"""What is known of a person's picture files before they are decoded for a model: hashes, sizes, colours, faults.

Facts about a file are kept in the suite's cache under its path, and hold while its size and modification time do.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from suite.data.pictures import DEEP_MODES, FORMATS, flattened, opened
from suite.errors import InputError
from suite.store.files import cache_dir, keep, open_plain

VERSION = 1  # of the facts; those of other versions are gathered again

SAMPLE = 2000  # pictures whose pixels are looked at for the mean, the standard deviation and the colours

SMALLEST, LARGEST = 28, 64  # pixels; bounds of the native size of a folder, which the suite's own networks take

WIDE = 2.0  # ratio of the sides above which cropping to the centre square loses half of the picture or more

WIDE_SHARE = 0.05  # proportion of such pictures from which on pictures are padded instead of cropped

OnProgress = Callable[[int, int, str], None]  # pictures done, pictures in total, what is being done


@dataclass(frozen=True)
class Facts:
    """What is known of one file from its bytes and its header."""

    size: int  # bytes
    changed: int  # modification time in nanoseconds
    sha256: str
    width: int  # pixels, before the picture is turned upright
    height: int
    grey: bool  # by its mode
    fault: str | None = None  # why it cannot be read


@dataclass(frozen=True)
class Summary:
    """What is known of the pictures of a training part as a whole."""

    channels: int  # 1 where all pictures are grey
    mean: tuple[float, ...]  # of pixels scaled to 0..1, one a channel
    std: tuple[float, ...]
    white: float | None  # value of 16-bit and floating-point pictures that is white; None: there are none


T = TypeVar("T")

R = TypeVar("R")


def in_parallel(work: Callable[[T], R], items: Sequence[T], *, by_torch: bool = True) -> Iterator[R]:
    """`map` on all cores, in order; decoders and hashes release the interpreter's lock. Few results are held at once.

    PyTorch uses one thread in each of the threads meanwhile. `by_torch=False` is for work that does without it, so that
    it is not imported.
    """
    if not items:
        return
    from suite.hardware.cores import cores

    torch = importlib.import_module("torch") if by_torch else None
    threads = torch.get_num_threads() if torch else 1
    ahead = 4 * cores()
    single = partial(torch.set_num_threads, 1) if torch else None
    with ThreadPoolExecutor(cores(), "pictures", initializer=single) as pool:
        try:
            waiting = iter(items)
            running = [pool.submit(work, item) for item in islice(waiting, ahead)]
            for _ in range(len(items)):
                yield running.pop(0).result()
                running += [pool.submit(work, item) for item in islice(waiting, 1)]
        finally:
            pool.shutdown(cancel_futures=True)
            if torch:
                torch.set_num_threads(threads)  # the threads of the pool have changed the process's default


def inspect(name: str, files: Iterable[Path], on_progress: OnProgress) -> dict[Path, Facts]:
    """Facts about files, gathered where they are not known or the file has changed."""
    files = list(files)
    place = _facts_file(name)
    known = _read_facts(place)
    states = {path: (status.st_size, status.st_mtime_ns) for path in files if (status := _stat(path)) is not None}
    found = {p: f for p in files if (f := known.get(str(p))) is not None and (f.size, f.changed) == states.get(p)}
    missing = [path for path in files if path not in found]
    for done, (path, facts) in enumerate(zip(missing, in_parallel(_look, missing), strict=True), 1):
        found[path] = facts
        on_progress(done, len(missing), "looking at pictures")
    if missing:
        _write_facts(place, found)
    return found


def note_faults(name: str, faults: Mapping[Path, str]) -> None:
    """Keep that these files cannot be decoded although their headers are sound."""
    place = _facts_file(name)
    known = {Path(path): facts for path, facts in _read_facts(place).items()}
    _write_facts(place, {p: replace(f, fault=faults[p]) if p in faults else f for p, f in known.items()})


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _look(path: Path) -> Facts:
    from PIL import Image, UnidentifiedImageError

    try:
        with open(open_plain(path), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except OSError as error:
        return Facts(0, 0, "", 0, 0, False, error.strerror or str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    Image.MAX_IMAGE_PIXELS = None  # `opened` checks it
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            grey = image.mode in ("1", "L", "LA", *DEEP_MODES)
        return Facts(status.st_size, status.st_mtime_ns, sha256, width, height, grey)
    except UnidentifiedImageError:
        return Facts(status.st_size, status.st_mtime_ns, sha256, 0, 0, False, "not an image of a known format")
    except Exception as error:  # Pillow's decoders raise many types of exception on malformed files
        return Facts(status.st_size, status.st_mtime_ns, sha256, 0, 0, False, " ".join(str(error).split())[:200])


def _facts_file(name: str) -> Path:
    return cache_dir() / "pictures" / "facts" / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.json"


def _read_facts(path: Path) -> dict[str, Facts]:
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != VERSION:
            return {}
        return {name: Facts(*fields) for name, fields in data["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write_facts(place: Path, found: Mapping[Path, Facts]) -> None:
    """Keep what is known of the files of a data set. In a read-only cache nothing is kept."""
    fields = {
        str(p): (f.size, f.changed, f.sha256, f.width, f.height, f.grey, f.fault)
        for p, f in found.items()
        if f.size or not f.fault  # a file that could not be opened is tried again
    }
    keep(place, json.dumps({"version": VERSION, "files": fields}))


def native_size(facts: Sequence[Facts]) -> int:
    """The side in pixels at which networks without a size of their own take the pictures: the median shorter side."""
    middle = float(np.median([min(f.width, f.height) for f in facts]))
    return int(min(max(round(middle), SMALLEST), LARGEST))


def are_wide(facts: Sequence[Facts]) -> bool:
    """Whether a crop to the centre square would lose half of the picture or more in many of the pictures."""
    wide = sum(max(f.width, f.height) >= WIDE * min(f.width, f.height) for f in facts)
    return wide >= max(1, WIDE_SHARE * len(facts))


def summarize(files: Sequence[Path], facts: Sequence[Facts], on_progress: OnProgress) -> Summary:
    """Colours, mean and standard deviation, from at most SAMPLE pictures that are spread evenly over the files.

    Files that cannot be decoded are left out here; decoding them for a model reports them.
    """
    rows = np.unique(np.linspace(0, len(files) - 1, SAMPLE).round().astype(int)) if len(files) > SAMPLE else None
    chosen = list(files) if rows is None else [files[i] for i in rows]
    all_grey = all(f.grey for f in facts)
    measured: list[_Pixels] = []
    for done, pixels in enumerate(in_parallel(_measure, chosen), 1):
        if pixels is not None:
            measured.append(pixels)
        on_progress(done, len(chosen), "measuring colours")
    if not measured:
        raise InputError(f"None of the {len(files)} pictures can be read; the first is {files[0]}.")
    deep = [p.largest for p in measured if p.largest is not None]
    white = _white(max(deep)) if deep else None
    grey = all_grey or all(p.grey for p in measured)
    mean, square = (np.mean([p.moments(white)[i] for p in measured], axis=0) for i in (0, 1))
    std = np.sqrt(np.maximum(square - mean**2, 1e-4))
    if grey:
        mean, std = mean[:1], std[:1]
    return Summary(
        channels=len(mean),
        mean=tuple(round(float(v), 4) for v in mean),
        std=tuple(round(float(v), 4) for v in std),
        white=white,
    )


def _white(largest: float) -> float:
    """The value that is white: the largest of the smallest number of bits, from 8 to 16, that holds all values."""
    if largest <= 1.0:
        return 1.0
    return next((float(2**bits - 1) for bits in range(8, 17) if largest < 2**bits), largest)


@dataclass(frozen=True)
class _Pixels:
    grey: bool
    mean: np.ndarray  # (3,) of the channels; of pictures with more than 8 bits as stored, else scaled to 0..1
    square: np.ndarray  # (3,) mean of the squares
    largest: float | None  # of pictures with more than 8 bits

    def moments(self, white: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and mean square for pixels scaled to 0..1."""
        scale = 1.0 if self.largest is None or white is None else white
        return self.mean / scale, self.square / scale**2


def _measure(path: Path) -> _Pixels | None:
    try:
        with opened(path, needed=LARGEST) as image:
            if image.mode in DEEP_MODES:
                values = np.nan_to_num(np.asarray(image, dtype=np.float64))
                values = np.maximum(values, 0)
                mean, square = np.full(3, values.mean()), np.full(3, (values**2).mean())
                return _Pixels(True, mean, square, float(values.max(initial=0)))
            counts = np.array(flattened(image, "RGB").histogram(), np.float64).reshape(3, 256)
            grey = image.mode in ("1", "L", "LA") or _is_grey(image)
    except InputError:
        return None
    levels = np.arange(256) / 255
    total = counts.sum(1)
    return _Pixels(grey, counts @ levels / total, counts @ levels**2 / total, None)


def _is_grey(image: object) -> bool:
    from PIL import ImageChops

    red, green, blue = flattened(image, "RGB").split()  # type: ignore[arg-type]
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(green, blue).getbbox())
