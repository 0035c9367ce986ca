"""From the body of a request to pictures: a picture file, a multipart form of them, or JSON.

Nothing here trusts the client: what is wrong raises Refused with the code that names it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from aiohttp import MultipartReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader

from suite.serving.limits import Limits, Refused

LONGEST_NAME = 200  # characters of a picture's name that an answer repeats

KINDS = "Send a picture (image/png, image/jpeg, ...), a form (multipart/form-data) or JSON (application/json)."


class Given(NamedTuple):
    """One picture of a request, before it is decoded."""

    name: str | None  # that the client gave it
    content: bytes | np.ndarray  # a file, or pixels (H, W) or (H, W, 3) uint8


# --- forms ----------------------------------------------------------------------------------------------------------


async def from_form(headers: Any, body: bytes, limits: Limits) -> list[Given]:
    """The files of a multipart form, in their order. Raises Refused."""
    stream = StreamReader(BaseProtocol(None), 2 * len(body) + 1)  # type: ignore[arg-type]  # it holds all of the body
    stream.feed_data(body)
    stream.feed_eof()
    found: list[Given] = []
    try:
        reader = MultipartReader(headers, stream)
        while (part := await reader.next()) is not None:
            if isinstance(part, MultipartReader):
                raise Refused(400, "A form within a form is not taken.")
            if len(found) == limits.queue:
                raise Refused(413, f"A request has {limits.queue} pictures at most.")
            found.append(Given(_shortened(part.filename or part.name), bytes(await part.read(decode=False))))
    except Refused:
        raise
    except Exception:  # of many types, as of a decoder of pictures
        raise Refused(400, "The body is no valid multipart form.") from None
    if not found:
        raise Refused(400, "The form holds no picture.")
    return found


# --- JSON -----------------------------------------------------------------------------------------------------------


def from_json(body: bytes, limits: Limits) -> tuple[list[Given], bool]:
    """The pictures of a JSON body, and whether it is a list of them. Raises Refused."""
    try:
        tree = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else _first_line(error)
        raise Refused(400, f"The body is no valid JSON: {reason}.") from None
    many = isinstance(tree, list)
    items = tree if many else [tree]
    if not items:
        raise Refused(400, "The list holds no picture.")
    if len(items) > limits.queue:
        raise Refused(413, f"A request has {limits.queue} pictures at most.")
    return [_item(item, limits) for item in items], many


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _item(item: Any, limits: Limits) -> Given:
    """{"image": base64 of a file} or {"pixels": rows of numbers}, either with "name"."""
    if not isinstance(item, dict) or ("image" in item) == ("pixels" in item):
        raise Refused(400, 'A picture is {"image": "<base64>"} or {"pixels": [[0..255, ...], ...]}.')
    name = item.get("name")
    if not (name is None or isinstance(name, str)):
        raise Refused(400, '"name" is a text.')
    make: Callable[[Any], bytes | np.ndarray] = _file if "image" in item else _pixels
    content = make(item["image"] if "image" in item else item["pixels"])
    if isinstance(content, np.ndarray) and content.shape[0] * content.shape[1] > limits.pixels:
        raise Refused(413, f"A picture has {limits.pixels:,} pixels at most.")
    return Given(_shortened(name), content)


def _file(text: Any) -> bytes:
    """The bytes of a file in base64, or of a data URL."""
    if not isinstance(text, str):
        raise Refused(400, '"image" is a text: a file in base64.')
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, '"image" is no valid base64.') from None


def _pixels(rows: Any) -> np.ndarray:
    """Rows of grey levels, or of triples red, green, blue: (H, W) or (H, W, 3) uint8."""
    wrong = Refused(400, '"pixels" are rows of equal length, of numbers from 0 to 255, or of three such for colours.')
    if not isinstance(rows, list):
        raise wrong
    try:
        values = np.array(rows)
    except (ValueError, OverflowError, RecursionError):
        raise wrong from None
    if values.dtype.kind not in "iuf" or values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)):
        raise wrong
    if not values.size or not (values >= 0).all() or not (values <= 255).all():
        raise wrong
    return np.rint(values).astype(np.uint8)


def _shortened(name: str | None) -> str | None:
    return None if name is None else name[:LONGEST_NAME]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "it cannot be decoded")[:100]
