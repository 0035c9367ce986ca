"""A folder of PNG files that show what a model saw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from suite.errors import InputError
from suite.store.outputs import check_folder, writing

MARK = ("Software", "mnist-suite predict --show")  # text in the PNG files of such folders

SHOW = "--show"  # the option that names the folder

LONGEST = 60  # characters of a picture's name that are kept


class Seen:
    """The folder, emptied of the files of an earlier run.

    Files are named by the position and the name of the picture: 0003-cat.png.

    Raises InputError where the folder cannot be written, holds other files, which must not be overwritten, or a
    picture that is read.
    """

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder, self.files = folder, files
        check_folder(folder, SHOW)
        place = os.path.realpath(folder)
        if any(os.path.realpath(path.parent) == place for path in files):
            raise InputError(f"{folder} holds pictures to predict; name another folder with --show DIR.")
        with writing(folder, SHOW):
            earlier = sorted(folder.iterdir()) if folder.is_dir() else []
        if (other := next((path.name for path in earlier if not _is_own(path)), None)) is not None:
            raise InputError(f"{folder} holds other files, such as {other!r}; name a new folder with --show DIR.")
        with writing(folder, SHOW):
            for path in earlier:
                path.unlink()
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, position: int, picture: np.ndarray) -> None:
        """Write the picture (C, H, W) uint8, C 1 or 3, of the file at a position."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        mark = PngInfo()
        mark.add_text(*MARK)
        digits = max(4, len(str(len(self.files))))
        name = f"{position + 1:0{digits}d}-{self.files[position].stem[:LONGEST]}.png"
        pixels = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
        with writing(self.folder / name, SHOW):
            Image.fromarray(pixels).save(self.folder / name, pnginfo=mark)


def _is_own(path: Path) -> bool:
    from PIL import Image

    if not path.is_file():  # opening a pipe may never end
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(MARK[0]) == MARK[1]
    except (OSError, ValueError, SyntaxError):
        return False
