"""The command serve: an exported model as an HTTP server."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from suite.cli.options import LARGEST, Device, Format, Json, Quiet, path_argument, takes
from suite.errors import InputError

TOKEN_VARIABLE = "MNIST_SUITE_TOKEN"

SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of `serve`, with the limits of `suite.serving.limits.Limits`."""

    model: Annotated[Path, path_argument(help="A folder that `export` wrote.")]
    host: Annotated[str, typer.Option(help="Address to listen at; any but this machine's own needs a token.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any free one.")] = 8080
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE,
            help=f"What clients must send as `Authorization: Bearer TOKEN`, {SHORTEST_TOKEN} characters or more; other "
            "users of this machine see the options of a command, so prefer the variable.",
        ),
    ] = None
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that hold the model and predict.")] = 1
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads of each of them.", show_default="all cores but one, divided"),
    ] = None
    max_body: Annotated[
        int, typer.Option(min=1024, max=LARGEST, help="Bytes of a request at most.", metavar="BYTES")
    ] = 8 << 20
    max_pixels: Annotated[
        int,
        typer.Option(min=1, max=LARGEST, help="Pixels of a picture at most; of a large JPEG five times as many."),
    ] = 16_000_000
    max_queue: Annotated[int, typer.Option(min=1, max=100_000, help="Pictures under way at most.")] = 256
    max_connections: Annotated[int, typer.Option(min=1, max=100_000, help="Connections at most.")] = 1000
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds to send a request, and to get its answer.")
    ] = 10.0
    device: Device = "cpu"
    format: Format = None
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each request in one line on stderr.")] = False
    as_json: Json = False
    quiet: Quiet = False


@takes(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve an exported model over HTTP: pictures in, JSON out, and a page to try it on.

    POST /predict takes a picture file, a multipart form of several, or JSON: {"image": "<base64>"} or {"pixels":
    [[0..255, ...], ...]}, or a list of such. GET /health, /metrics (for Prometheus) and /card tell of the server; / is
    the page. SIGTERM or Ctrl+C ends it: what has been taken is answered first.

    With --json the first line on stdout is {"url": ..., "port": ..., "format": ..., "pid": ...}, once it listens.

    \b
    Examples: mnist-suite serve model
              mnist-suite serve model --format int8 --port 0 --json
              curl --data-binary @digit.png -H 'Content-Type: image/png' http://127.0.0.1:8080/predict
              MNIST_SUITE_TOKEN=$(openssl rand -hex 16) mnist-suite serve model --host 0.0.0.0
    """
    import asyncio

    try:
        from suite.serving import running
        from suite.serving.service import Service
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "prometheus_client"):
            raise
        raise InputError("`serve` needs aiohttp and prometheus-client: pip install 'mnist-suite[serve]'.") from None
    from suite.export.card import read_card
    from suite.export.runtimes import formats
    from suite.hardware.cores import cores
    from suite.serving.limits import Limits

    _check_token(options.token, local=running.is_local(options.host))
    limits = Limits(
        body=options.max_body,
        pixels=options.max_pixels,
        seconds=options.timeout,
        queue=options.max_queue,
        connections=_connections(options.max_connections),
    )
    card = read_card(options.model)
    service = Service(card, _worker(options, cores()), limits, options.token, _log if options.verbose else None)
    with running.listen(options.host, options.port) as one:
        address = running.address_of(one)

        def on_ready() -> None:
            if options.as_json:
                facts = {"url": address, "port": one.getsockname()[1], "format": service.format, "pid": os.getpid()}
                print(json.dumps(facts), flush=True)
            if not options.quiet:
                _say(f"{card.trial} ({service.format}) is served at {address}; Ctrl+C ends it.")
                if options.format is None and service.format != "int8" and "int8" in formats(options.model):
                    _say("This export has a faster format: --format int8.")

        number = asyncio.run(running.serve(service, limits, one, options.workers, on_ready))
    if not options.quiet:
        _say(f"mnist-suite: ended by {number.name}.")
    raise typer.Exit(running.exit_code(number))


def _worker(options: ServeOptions, cores: int) -> Sequence[str]:
    """The command that starts a process with the model. One core is left to the server."""
    from suite.interpreter import command

    threads = options.threads or max(1, (cores - 1) // options.workers)
    words = ["--device", options.device, "--threads", str(threads), "--pixels", str(options.max_pixels)]
    if options.format is not None:
        words += ["--format", options.format]
    return command(*words, str(options.model.absolute()), module="suite.serving.worker")


def _check_token(token: str | None, *, local: bool) -> None:
    """Raises InputError for a token that is needed and missing, or that cannot be sent or is too short."""
    if token is None:
        if not local:
            raise InputError(
                f"Other machines reach this address, so a token is needed: set {TOKEN_VARIABLE}, for example to the "
                "output of `openssl rand -hex 16`."
            )
    elif len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            f"The token must have {SHORTEST_TOKEN} characters or more, all of them ASCII and none a blank."
        )


def _connections(wanted: int) -> int:
    """As many connections as wanted, or as the limit of open files allows."""
    import resource

    return max(1, min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64))


def _say(text: str) -> None:
    from suite.cli import console

    console.err.print(text, soft_wrap=True)


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
