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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from suite.errors import printable
from suite.export.card import Card
from suite.export.predict import batch_size
from suite.hardware.cores import cores
from suite.serving import bodies, metrics
from suite.serving.batching import Batcher
from suite.serving.bodies import Given
from suite.serving.limits import Limits, Refused, busy
from suite.serving.page import PAGE, PAGE_HEADERS
from suite.serving.pictures import SMALL_BODY, is_small_png, picture_of
from suite.serving.public import public_card
from suite.serving.worker import Answered, Asked

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
    """Answers requests with a model that worker processes hold.

    Args:
        card: of the model.
        command: starts a worker, see `suite.serving.worker`.
        limits: what a request may use.
        token: what every request must hold; None: none is needed, but the request must name this machine.
        log: called with one line for each request; None: no log.
    """

    def __init__(
        self,
        card: Card,
        command: Sequence[str],
        limits: Limits,
        token: str | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.card, self.limits, self.log = card, limits, log
        self._token = token.encode() if token else None
        self.format = ""
        self.stopping = False
        self._pictures = self._held = 0  # under way: pictures, and bytes of bodies
        self.metrics = metrics.Metrics(lambda: self._pictures)
        most = min(limits.queue, batch_size(card.preprocess, "cpu"))
        self._batcher = Batcher(command, most, limits.seconds, self.metrics.batch)
        self._threads = ThreadPoolExecutor(cores(), "decode")

    async def start(self, workers: int) -> None:
        """Start the workers. Raises InputError or WorkError where the model cannot be loaded."""
        self.format = await self._batcher.start(workers)
        self.metrics.model(trial=self.card.trial, format=self.format)

    async def close(self) -> None:
        await self._batcher.close()
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
            return _json(public_card(self.card, self.format))
        status = "stopping" if self.stopping else "ok" if self._batcher.ready else "loading"
        return _json({"status": status}, 200 if status == "ok" else 503)

    def _check_sender(self, request: web.BaseRequest, path: str) -> None:
        """Refuse who does not know the token, and pages of other sites.

        Without a token, the Host must be this machine: somebody else's name may be made to resolve to it (DNS
        rebinding), which lets a page of theirs read the answers.
        """
        headers = request.headers
        host = headers.get("Host")  # every browser sends one
        if (origin := headers.get("Origin")) is not None and _netloc(origin) != host:
            raise Refused(403, "Pages of other sites may not use this server.")
        if self._token is None:
            if host is not None and _hostname(host) not in LOCAL:
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
                asked = await self._read(given, body, deadline)
            finally:
                self._held -= len(body)
            answers = await self._answers(asked, seen, deadline)
        finally:
            self._pictures -= taken
        named = [b'{"image": %s, %s' % (json.dumps(g.name).encode(), a.body[1:]) for g, a in zip(given, answers)]
        status = 200 if any(one.status == 200 for one in answers) else answers[0].status
        body = b"[%s]" % b", ".join(named) if many else named[0]
        return web.Response(body=body, status=status, headers=JSON)

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
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
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
            if len(body) <= SMALL_BODY:
                return bodies.from_json(body, self.limits)
            return await self._in_thread(bodies.from_json, body, self.limits)
        if kind == "multipart/form-data":
            return await bodies.from_form(request.headers, body, self.limits), True
        if kind.startswith("image/") or kind == "application/octet-stream":
            return [Given(None, body)], False
        raise Refused(415, f"{kind[:100]} is not taken. {bodies.KINDS}")

    async def _read(self, given: list[Given], body: bytes, deadline: float) -> list[bytes | np.ndarray | Refused]:
        """What the workers get: small files as they are, and other pictures as the model sees them."""
        if given[0].content is body and is_small_png(body):
            return [body]
        return await self._in_thread(self._read_all, given, deadline)

    def _read_all(self, given: list[Given], deadline: float) -> list[np.ndarray | Refused]:
        found: list[np.ndarray | Refused] = []
        for one in given:
            if time.monotonic() > deadline:
                raise Refused(504, f"The pictures could not be read in {self.limits.seconds:g} seconds.")
            try:
                found.append(picture_of(one.content, self.card.preprocess, self.limits.pixels))
            except Refused as refused:
                found.append(refused)
        return found

    async def _in_thread(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _answers(self, asked: list[bytes | np.ndarray | Refused], seen: bool, deadline: float) -> list[Answered]:
        """The answers of the workers, and those to pictures that cannot be used."""
        if len(asked) == 1 and not isinstance(asked[0], Refused):
            return [await self._batcher.submit(Asked(asked[0], seen), deadline)]
        waiting = [
            _unusable(one) if isinstance(one, Refused) else self._batcher.submit(Asked(one, seen), deadline)
            for one in asked
        ]
        futures = [one for one in waiting if not isinstance(one, Answered)]
        if futures:
            await asyncio.wait(futures)
        return [one if isinstance(one, Answered) else one.result() for one in waiting]


def _unusable(refused: Refused) -> Answered:
    return Answered(refused.status, json.dumps({"error": refused.reason}).encode())


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
