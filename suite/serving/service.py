"""The requests that a server answers: routes, who may ask, and predictions.

One function takes every request and gives it one answer. What a client may use is bounded by `Limits`; what it sends is
never trusted, and no answer tells of files, of the host or of the program's insides.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from suite.errors import printable
from suite.export.predict import Predictor, batch_size
from suite.hardware.cores import cores
from suite.serving import bodies, metrics
from suite.serving.batching import Batcher
from suite.serving.bodies import Given, Read
from suite.serving.limits import Limits, Refused, busy
from suite.serving.page import PAGE, PAGE_HEADERS
from suite.serving.public import health, public_card, seen_png

COMMON = {
    "Server": "mnist-suite",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

JSON = {**COMMON, "Content-Type": "application/json; charset=utf-8"}

ROUTES = {  # path -> methods
    "/": ("GET", "HEAD"),
    "/health": ("GET", "HEAD"),
    "/card": ("GET", "HEAD"),
    "/metrics": ("GET", "HEAD"),
    "/predict": ("POST",),
}

OPEN = {"/", "/health"}  # paths that need no token: the page holds nothing but itself

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})  # names of this machine that a browser on it may use


class Service:
    """Answers requests with a model.

    Args:
        predictor: the model.
        limits: what a request may use.
        token: what every request must hold; None: none is needed, but the request must name this machine.
        log: called with one line for each request; None: no log.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, token: str | None = None, log: Callable[[str], None] | None = None
    ) -> None:
        self.predictor, self.limits, self.log = predictor, limits, log
        self._token = token.encode() if token else None
        self.stopping = False
        self._pictures = self._held = 0  # under way: pictures, and bytes of bodies
        self.metrics = metrics.Metrics(lambda: self._pictures, self._described())
        most = min(limits.queue, batch_size(predictor.card.preprocess, "cpu"))
        self._batcher = Batcher(predictor.answers, most, self.metrics.batch)
        self._threads = ThreadPoolExecutor(cores(), "decode")
        self._card = json.dumps(public_card(predictor.card, predictor.runtime.format)).encode()

    def _described(self) -> dict[str, str]:
        return {"trial": self.predictor.card.trial, "format": self.predictor.runtime.format}

    def close(self) -> None:
        self._batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """The answer to any request. It raises nothing."""
        began = time.monotonic()
        try:
            response = await self._routed(request, began)
        except Refused as refused:
            response = _refusal(refused)
        except Exception as error:  # a fault of this program, or a model that cannot be used
            sys.stderr.write(f"mnist-suite: {printable(' '.join(f'{type(error).__name__}: {error}'.split()))}\n")
            response = _refusal(Refused(500, "The server has failed to answer this request."))
        if self.stopping or response.status in (401, 408, 413):  # the rest of a body is not worth reading
            response.force_close()
        self.metrics.request(response.status)
        if self.log is not None:
            self._log(request, response.status, began)
        return response

    def malformed(self, error: BaseException | None) -> web.Response:
        """The answer to what is no request of HTTP."""
        if isinstance(error, LineTooLong) or "Too many" in str(error):
            refused = Refused(431, "The request line or the headers are too long.")
        else:
            refused = Refused(400, "This is no valid HTTP request.")
        response = _refusal(refused)
        response.force_close()
        self.metrics.request(response.status)
        return response

    def _log(self, request: web.BaseRequest, status: int, began: float) -> None:
        assert self.log is not None
        when, path = time.strftime("%Y-%m-%dT%H:%M:%S"), printable(request.raw_path[:200])
        took = 1000 * (time.monotonic() - began)
        self.log(f"{when} {request.remote} {request.method} {path} {status} {took:.1f} ms")

    async def _routed(self, request: web.BaseRequest, began: float) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        self._check_sender(request, path)
        methods = ROUTES.get(path)
        if methods is None:
            raise Refused(404, f"There is nothing here; there is {', '.join(ROUTES)}.")
        if request.method not in methods:
            raise Refused(405, f"{path} takes {' and '.join(methods)}.", {"Allow": ", ".join(methods)})
        if path == "/predict":
            response = await self._predict(request, "seen=1" in query.split("&"), began)
            self.metrics.seconds(time.monotonic() - began)
            return response
        if path == "/":
            return web.Response(body=PAGE, headers={**COMMON, **PAGE_HEADERS})
        if path == "/metrics":
            return web.Response(body=self.metrics.text(), headers={**COMMON, "Content-Type": metrics.TYPE})
        if path == "/card":
            return web.Response(body=self._card, headers=JSON)
        return _json(health(self.stopping), 503 if self.stopping else 200)

    def _check_sender(self, request: web.BaseRequest, path: str) -> None:
        """Refuse who does not know the token, and pages of other sites.

        Without a token, the Host must be this machine: somebody else's name may be made to resolve to it (DNS
        rebinding), which lets a page of theirs read the answers.
        """
        headers = request.headers
        host = headers.get("Host", "")
        if (origin := headers.get("Origin")) is not None and _netloc(origin) != host:
            raise Refused(403, "Pages of other sites may not use this server.")
        if self._token is None:
            if _hostname(host) not in LOCAL:
                raise Refused(421, "This server is not the host that the request names.")
        elif path not in OPEN:
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            same = secrets.compare_digest(given.strip().encode(errors="replace"), self._token)
            if not same or scheme.lower() != "bearer":
                asked = {"WWW-Authenticate": 'Bearer realm="mnist-suite"'}
                raise Refused(401, "Send the header Authorization: Bearer TOKEN.", asked)

    # --- predictions ------------------------------------------------------------------------------------------------

    async def _predict(self, request: web.BaseRequest, seen: bool, began: float) -> web.Response:
        if self._pictures >= self.limits.queue:
            raise busy("Too many pictures wait already.")
        deadline = began + self.limits.seconds
        taken = 1
        self._pictures += 1
        try:
            body = await self._body(request, deadline)
            self._held += len(body)
            try:
                given, many = await self._given(request, body)
                more = len(given) - 1
                if more and self._pictures + more > self.limits.queue:
                    raise busy("Too many pictures wait already.")
                self._pictures += more
                taken += more
                read = await self._read(given, body, deadline)
            finally:
                self._held -= len(body)
            answers = await self._answers(read, deadline)
        finally:
            self._pictures -= taken
        found = [_named(one, answer) for one, answer in zip(read, answers, strict=True)]
        if seen:
            for one, answer in zip(read, found, strict=True):
                if not isinstance(one.picture, Refused):
                    answer["seen"] = seen_png(one.picture)
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        if len(refused) == len(answers):
            return _json(found if many else found[0], refused[0].status, refused[0].headers)
        return _json(found if many else found[0])

    async def _body(self, request: web.BaseRequest, deadline: float) -> bytes:
        """The body. Raises Refused where it is too long, too slow or compressed."""
        limit, content = self.limits.body, request.content
        too_long = Refused(413, f"A request has {limit:,} bytes at most.")
        if (request.content_length or 0) > limit:
            raise too_long
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(415, "Send the body without a Content-Encoding.", {"Accept-Encoding": "identity"})
        if content.is_eof():  # it has come with the headers
            return content.read_nowait(-1)
        if request.headers.get("Expect", "").lower() == "100-continue":
            request.transport and request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                while part := await content.readany():
                    size += len(part)
                    if size > limit:
                        raise too_long
                    self._held += len(part)
                    parts.append(part)
                    if self._held > self.limits.memory:
                        raise busy("Too many large requests are under way.")
        except TimeoutError:
            raise Refused(408, f"The request did not come within {self.limits.seconds:g} seconds.") from None
        except (web.RequestPayloadError, ConnectionError, OSError):
            raise Refused(400, "The body of the request is malformed.") from None
        finally:
            self._held -= sum(map(len, parts))
        return b"".join(parts)

    async def _given(self, request: web.BaseRequest, body: bytes) -> tuple[list[Given], bool]:
        """The pictures of a body, and whether the answer is a list."""
        kind = request.content_type
        if not body:
            raise Refused(400, f"The request has no body. {bodies.KINDS}")
        if kind == "application/json":
            if len(body) <= bodies.SMALL_BODY:
                return bodies.from_json(body, self.limits)
            return await self._in_thread(bodies.from_json, body, self.limits)
        if kind == "multipart/form-data":
            return await bodies.from_form(request.headers, body, self.limits), True
        if kind.startswith("image/") or kind == "application/octet-stream":
            return [Given(None, body)], False
        raise Refused(415, f"{kind[:100]} is not taken. {bodies.KINDS}")

    async def _read(self, given: list[Given], body: bytes, deadline: float) -> list[Read]:
        if given[0].content is body and bodies.is_small_png(body):
            return [bodies.read(self.predictor, given[0], self.limits)]
        return await self._in_thread(bodies.read_all, self.predictor, given, self.limits, deadline)

    async def _in_thread(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _answers(self, read: list[Read], deadline: float) -> list[dict[str, Any] | Refused]:
        """The model's answers, or why there is none."""
        pictures = [one.picture for one in read]
        waiting = [p if isinstance(p, Refused) else self._batcher.submit(p, deadline) for p in pictures]
        futures = [one for one in waiting if not isinstance(one, Refused)]
        if futures:
            await asyncio.wait(futures)
        return [one if isinstance(one, Refused) else one.result() for one in waiting]


def _named(read: Read, answer: dict[str, Any] | Refused) -> dict[str, Any]:
    return {"image": read.name, **({"error": answer.reason} if isinstance(answer, Refused) else answer)}


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps(value).encode()
    return web.Response(body=body, status=status, headers={**JSON, **headers} if headers else JSON)


def _refusal(refused: Refused) -> web.Response:
    return _json({"error": refused.reason}, refused.status, refused.headers)


@lru_cache(64)
def _hostname(host: str) -> str | None:
    """The name in a Host header; None for one that is no host."""
    if host in LOCAL:
        return host
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.netloc == host and "@" not in host and (parts.port or 80) > 0 else None
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
