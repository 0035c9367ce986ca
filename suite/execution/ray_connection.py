"""Connecting this process to a Ray cluster, and leaving it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from suite.errors import InputError
from suite.execution.worker import STOP_SIGNALS
from suite.hardware.cores import granted_cores

OBJECT_STORE = 256 * 2**20  # bytes of shared memory of a cluster started here; checkpoints pass through it

REACH_SECONDS = 10.0  # timeout of a test connection; Ray itself would try for minutes

RECONNECT_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s"  # variable: time after which Ray ends this process when
# the head node does not answer

_leaving: threading.Thread | None = None  # shuts the last connection down


def patience() -> float:
    """Seconds of silence after which the cluster is given up, well before Ray would end this process."""
    return float(os.environ.get(RECONNECT_SECONDS, "60")) / 2


def connect() -> Any:
    """The `ray` module, connected to the cluster of RAY_ADDRESS, or to one started on this machine.

    Raises InputError where Ray is missing or its cluster cannot be used.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads its settings when it is imported
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not given and not os.path.exists(os.path.expanduser("~/.ray/auth_token")):  # stays as it is without a home
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for a cluster started here
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'mnist-suite[ray]'.") from None
    if _leaving is not None:
        _leaving.join()  # a shutdown that is still under way would end the new connection
    reach(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    own: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False, "num_cpus": granted_cores()}
    with _signals_kept():
        try:
            ray.init(address=address or "local", **quiet, **({} if address else own))
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            if address == "auto" and isinstance(error, ConnectionError):
                raise InputError(
                    "RAY_ADDRESS=auto: no Ray cluster runs on this machine. Start one with `ray start --head`, give "
                    "the address of a head node such as 10.0.0.1:6379, or unset RAY_ADDRESS to have one started here."
                ) from None
            raise InputError(
                f"RAY_ADDRESS={address}: {first_line(error)}. What answers there is no Ray cluster that can be used, "
                "or it asks for another token (RAY_AUTH_TOKEN, or the file ~/.ray/auth_token)."
                if address
                else f"No Ray cluster can be started here: {first_line(error)}."
            ) from None
    return ray


def disconnect(ray: Any, seconds: float) -> None:
    """Shut the connection down, waiting up to `seconds`: that takes minutes where the cluster is gone.

    A shutdown that takes longer goes on in the background; `connect` waits for it.
    """
    global _leaving
    if _leaving is None or not _leaving.is_alive():
        _leaving = threading.Thread(target=ray.shutdown, daemon=True)
        _leaving.start()
    _leaving.join(seconds)


def reach(address: str) -> None:
    """Raises InputError where nothing listens at the address host:port. Other addresses ('', 'auto') are not tried."""
    if "//" in address:
        raise InputError(f"RAY_ADDRESS={address}: take the head node's own address, such as 10.0.0.1:6379, or auto.")
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}).") from None


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cause_of_death(error: Exception) -> str:
    """The sentence of a Ray error that says why an actor died, without the possible causes that follow it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if line.startswith("The actor is dead because")), first_line(error))
    return cause.partition(" Some common causes")[0].rstrip(".")


@dataclass(frozen=True)
class Missing:
    """A module that a node cannot import."""

    module: str
    address: str  # IP address of the node


def missing_module(error: Exception) -> Missing | None:
    """The module for lack of which an actor could not start, read from a Ray error; None for other errors."""
    text = str(error)
    module, address = re.search(r"No module named '([\w.]+)'", text), re.search(r"\bip=([0-9a-fA-F:.]+)", text)
    if module is None:
        return None
    return Missing(module[1].partition(".")[0], address[1] if address else "a node of the Ray cluster")


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the signal handlers: Ray installs one for SIGTERM as it connects."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
