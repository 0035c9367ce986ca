"""Pictures of clients as the model sees them, or the code that says why they cannot be used."""

from __future__ import annotations

import numpy as np

from suite.data.glyphs import Blank
from suite.data.pictures import NoImage, TooLarge, stored_picture
from suite.errors import InputError
from suite.export.predict import drawn
from suite.serving.limits import Refused
from suite.spec import Preprocess

SMALL_BODY = 16 << 10  # bytes

SMALL_PICTURE = 64 * 64  # pixels; a PNG of so few takes less time to decode than to hand to a thread

PNG = b"\x89PNG\r\n\x1a\n"


def is_small_png(body: bytes) -> bool:
    """Whether a body is a PNG of few pixels: by its header, which is its first part."""
    if len(body) > SMALL_BODY or not body.startswith(PNG):
        return False
    width, height = int.from_bytes(body[16:20], "big"), int.from_bytes(body[20:24], "big")
    return width * height <= SMALL_PICTURE


def picture_of(content: bytes | np.ndarray, expects: Preprocess, most: int) -> np.ndarray:
    """What the model sees of a file, or of pixels (H, W) or (H, W, 3) uint8: (C, stored, stored) uint8.

    `most` is the number of pixels from which on a picture is refused. Raises Refused.
    """
    try:
        if isinstance(content, bytes):
            return stored_picture(content, expects, most=most)
        return drawn(content, expects)
    except TooLarge as error:
        raise Refused(413, str(error)) from None
    except NoImage as error:
        raise Refused(415, str(error)) from None
    except Blank as error:
        raise Refused(422, str(error)) from None
    except InputError as error:
        raise Refused(400, str(error)) from None
