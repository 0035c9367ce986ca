"""Requests that mean harm: each gets its code, learns nothing, and the server goes on answering."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.serving.conftest import Served

BODY = 60_000  # bytes of a request at most

PIXELS = 400_000


@pytest.fixture(scope="module")
def server(serve: Callable[..., Served]) -> Served:
    """With limits that are reached soon."""
    limits = ("--max-body", BODY, "--max-pixels", PIXELS, "--timeout", 1, "--max-queue", 8, "--max-connections", 40)
    return serve(*map(str, limits))


@pytest.fixture(autouse=True)
def goes_on(server: Served, digits: list[Path]) -> Iterator[None]:
    """After each test a picture is answered, by the same worker."""
    before = psutil.Process(server.process.pid).children()
    yield
    assert server.predict(digits[0].read_bytes()).code == 200
    assert psutil.Process(server.process.pid).children() == before


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack("!IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("L", size).save(file, kind)
    return file.getvalue()


GOOD = encoded("PNG", (28, 28))

JSON = "application/json"

BODIES = {  # name -> (type, body, code)
    "oversized": ("image/png", b"x" * (BODY + 1), 413),
    "no body": ("image/png", b"", 400),
    "no picture": ("image/png", b"GET / HTTP/1.1\r\n\r\n", 415),
    "another type": ("text/html", GOOD, 415),
    "a type that is none": ("x/;;;", GOOD, 415),
    "PostScript": ("image/png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "SVG": ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "truncated": ("image/png", encoded("PNG", (60, 60))[:60], 400),
    "truncated small": ("image/png", GOOD[:-20], 400),
    "header alone": ("image/png", GOOD[:33], 415),
    "wrong checksum": ("image/png", GOOD[:40] + b"\0" + GOOD[41:], 415),
    "a bomb by its header": ("image/png", png(60_000, 60_000, b""), 413),
    "a bomb in truth": ("image/png", png(5_000, 5_000, b"\0" * 5_001 * 5_000), 413),
    "a bomb that says it is small": ("image/png", png(20, 20, b"\0" * 40_000_000), 422),
    "no pixels": ("image/png", png(0, 0, b""), 415),
    "a bomb in text": ("image/png", GOOD[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 30_000_000, 9)), 400),
    "wide": ("image/png", png(2**31 - 1, 1, b""), 413),
    "many frames": ("image/gif", encoded("GIF", (700, 700)), 413),
    "WebP": ("image/webp", encoded("WEBP", (700, 700)), 413),
    "blank": ("image/png", GOOD, 422),
    "no JSON": (JSON, b"{", 400),
    "no UTF-8": (JSON, b'{"image": "\xff"}', 400),
    "a number": (JSON, b"1", 400),
    "an empty list": (JSON, b"[]", 400),
    "a list of nothing": (JSON, b"[null]", 400),
    "both": (JSON, b'{"image": "", "pixels": []}', 400),
    "NaN": (JSON, b'{"pixels": [[NaN]]}', 400),
    "infinity": (JSON, b'{"pixels": [[1e999]]}', 400),
    "a large number": (JSON, b'{"pixels": [[' + b"9" * 5000 + b"]]}", 400),
    "a larger number": (JSON, b'{"pixels": [[' + b"9" * 40 + b"]]}", 400),
    "below zero": (JSON, b'{"pixels": [[-1]]}', 400),
    "above white": (JSON, b'{"pixels": [[256]]}', 400),
    "texts": (JSON, b'{"pixels": [["1", "2"]]}', 400),
    "truths": (JSON, b'{"pixels": [[true]]}', 400),
    "objects": (JSON, b'{"pixels": [[{}]]}', 400),
    "rows of other lengths": (JSON, b'{"pixels": [[1, 2], [1]]}', 400),
    "no rows": (JSON, b'{"pixels": [[]]}', 400),
    "four channels": (JSON, b'{"pixels": [[[1, 2, 3, 4]]]}', 400),
    "a name that is none": (JSON, b'{"pixels": [[1]], "name": {}}', 400),
    "nested": (JSON, b"[" * 30_000, 400),
    "nested in pixels": (JSON, b'{"pixels": ' + b"[" * 900 + b"]" * 900 + b"}", 400),
    "no base64": (JSON, b'{"image": "!!!"}', 400),
    "base64 of no text": (JSON, b'{"image": 3}', 400),
    "too many": (JSON, json.dumps([{"pixels": [[1]]}] * 9).encode(), 413),
    "a bomb in base64": (
        JSON,
        json.dumps({"image": base64.b64encode(png(60_000, 60_000, b"")).decode()}).encode(),
        413,
    ),
    "a path": (JSON, b'{"image": "../../../../etc/passwd"}', 400),
    "a form without a boundary": ("multipart/form-data", b"x", 400),
    "a form with another boundary": ("multipart/form-data; boundary=a", b"--b\r\n\r\nx\r\n--b--\r\n", 400),
    "an empty form": ("multipart/form-data; boundary=a", b"--a--\r\n", 400),
    "a form that does not end": ("multipart/form-data; boundary=a", b"--a\r\n\r\n" + GOOD, 400),
    "forms in forms": (
        "multipart/form-data; boundary=a",
        b"--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        400,
    ),
    "a form of many": ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n" * 20 + b"--a--\r\n", 413),
    "headers in a form": ("multipart/form-data; boundary=a", b"--a\r\n" + b"X: y\r\n" * 9000, 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_get_their_code(server: Served, name: str) -> None:
    kind, body, code = BODIES[name]
    answer = server.predict(body, kind)
    assert answer.code == code, answer.body
    reason = json.dumps(answer.json)
    assert "error" in reason and len(reason) < 500
    assert not re.search(r"Traceback|0x[0-9a-f]{6}|/(home|tmp|usr|work|root)|\.py", reason)


RAW = {  # name -> (bytes, code, or none where the connection is closed without an answer)
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 200),
    "a version that is none": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "traversal": (b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "traversal in escapes": (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "a file": (b"GET /model.onnx HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "NUL": (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "another address": (b"GET http://example.org/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "a tunnel": (b"CONNECT example.org:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    "a method": (b"DELETE /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "a method of its own": (b"BREW /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a picture by GET": (b"GET /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "a long line": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
    "a long header": (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", 431),
    "two lengths": (b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    "a length below zero": (b"POST /predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
    "length and chunks": (
        b"POST /predict HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks that are none": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    "endless chunks": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1000\r\n" + b"x" * 0x1000 + b"\r\n" + (b"1000\r\n" + b"x" * 0x1000 + b"\r\n") * 20,
        413,
    ),
    "a length that is a lie": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        413,
    ),
    "compressed": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n" + b"x" * 5,
        415,
    ),
    "a body that stops": (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 500\r\n\r\nabc",
        408,
    ),
    "headers that stop": (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConte", None),
    "nothing": (b"", None),
}  # fmt: skip


def test_what_is_no_request_gets_its_code(server: Served) -> None:
    """All at once: the slow ones take the whole second of the time limit."""

    async def main() -> list[bytes]:
        return await asyncio.gather(*(server.raw(sent) for sent, _ in RAW.values()))

    for (name, (_, code)), answer in zip(RAW.items(), asyncio.run(main()), strict=True):
        status = answer.split(b" ", 2)[1:2]
        assert status == ([] if code is None else [str(code).encode()]), (name, answer[:200])
        assert not re.search(rb"Traceback|aiohttp|\.py|passwd", answer), name


def test_a_request_that_drips_is_closed(server: Served) -> None:
    """A byte at a time does not prolong the time limit, neither of headers nor of a body."""

    async def drip(sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answer = asyncio.ensure_future(reader.read())
        for byte in sent:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)
        writer.close()
        assert answer.done(), "the connection is still open"
        return answer.result() if answer.exception() is None else b""

    async def main() -> list[bytes]:
        body = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        return await asyncio.gather(drip(b"GET / HTTP/1.1\r\nX: " + b"y" * 60), drip(body + b"x" * 40))

    headers, body = asyncio.run(main())
    assert headers == b"" and (body == b"" or b" 408 " in body)


def test_more_than_the_queue_holds_is_told_to_come_again(server: Served, digits: list[Path]) -> None:
    """Each of many gets an answer or a 503 with Retry-After; connections beyond the limit too."""
    picture = digits[5].read_bytes()  # which takes longer than a small one
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg", "Connection: close")
    head = "\r\n".join([*lines, f"Content-Length: {len(picture)}", "", ""]).encode()

    async def main() -> list[bytes]:
        return await asyncio.gather(*(server.raw(head + picture) for _ in range(120)))

    answers = asyncio.run(main())
    codes = {answer.split(b" ", 2)[1] for answer in answers if answer}
    assert {b"200", b"503"} <= codes <= {b"200", b"503", b"504"}
    assert all(b"Retry-After: 1" in answer for answer in answers if b" 503 " in answer[:20])
    assert any(b"Too many pictures" in answer for answer in answers)


def test_memory_stays_flat(server: Served, digits: list[Path]) -> None:
    bodies = [BODIES["a bomb that says it is small"], BODIES["nested"], BODIES["oversized"], BODIES["a bomb in text"]]
    process = psutil.Process(server.process.pid)

    def round_of_requests() -> int:
        for _ in range(6):
            for kind, body, code in bodies:
                assert server.predict(body, kind).code == code
            assert server.predict(digits[5].read_bytes(), "image/jpeg").code == 200
        return sum(one.memory_info().rss for one in [process, *process.children()])

    round_of_requests()
    before = round_of_requests()
    assert round_of_requests() < before + 8_000_000
