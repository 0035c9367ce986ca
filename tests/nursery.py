"""Worker processes of `multiprocessing` as forks of a process that has imported torch, in place of new Pythons.

A new Python needs seconds to import torch, and the tests start many workers. A nursery is a fork of tests/zygote.py
that only waits. Asked for a worker, it forks twice and ends the process in between, which makes the worker a child of
the process that has asked, as a spawned one is. The worker has the files, the environment and the signals that `spawn`
would give it, and runs what `spawn` runs.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing.spawn
import multiprocessing.util
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: orphans below this process become its children
POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # sent to whole groups


def attend(requests: socket.socket, forget: Callable[[dict[str, str]], None]) -> None:
    """Serve one process until it is gone. `forget` drops what was computed in another environment than the given."""
    for number in POLITE:
        signal.signal(number, signal.SIG_IGN)
    while True:
        message, files, *_ = socket.recv_fds(requests, 2**20, 64)
        if not message:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(writer, str(pid).encode())
                os._exit(0)
            become(json.loads(message), files, forget)
        os.close(writer)
        for file in files:
            os.close(file)
        os.waitpid(between, 0)
        requests.send(os.read(reader, 20))
        os.close(reader)


def become(asked: dict[str, object], files: Sequence[int], forget: Callable[[dict[str, str]], None]) -> None:
    """Be a worker: what is left to do after `exec` would have started a new Python."""
    code = 1
    try:
        numbers: list[int] = asked["files"]  # type: ignore[assignment]
        above = max(*numbers, *files) + 1
        kept = [os.dup2(file, above + i) for i, file in enumerate(files)]
        os.closerange(0, above)
        for file, number in zip(kept, numbers, strict=True):
            os.dup2(file, number)
        os.closerange(above, 2**16)
        environment: dict[str, str] = asked["environment"]  # type: ignore[assignment]
        forget(environment)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(asked["folder"])  # type: ignore[arg-type]
        for number in POLITE:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])  # type: ignore[arg-type]
        while os.getppid() != asked["parent"]:
            time.sleep(0.001)
        sys.argv = ["-c", "--multiprocessing-fork"]
        multiprocessing.spawn.spawn_main(**asked["arguments"])  # type: ignore[arg-type]
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                continue
        os._exit(code)


def take_workers_from(nursery: socket.socket) -> None:
    """From now on, what `multiprocessing` would spawn in this process comes from the nursery at the other end."""
    original = multiprocessing.util.spawnv_passfds
    control = ctypes.CDLL(None).prctl

    def is_open(file: int) -> bool:
        try:
            os.fstat(file)
        except OSError:
            return False
        return True

    def spawn(path: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
        wanted = next((a for a in arguments if "spawn_main(" in str(a)), None)
        if wanted is None:  # the resource tracker
            return original(path, arguments, files)
        numbers = sorted({*filter(is_open, (0, 1, 2)), *files})
        asked = {
            "files": numbers,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
            "parent": os.getpid(),
            "arguments": {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", wanted)},
        }
        control(SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(nursery, [json.dumps(asked).encode()], numbers)
            pid = nursery.recv(20)
        except OSError:  # a signal to the whole group has ended the nursery before it ignored signals
            pid = b""
        finally:
            control(SUBREAPER, 0, 0, 0, 0)
        return int(pid) if pid else original(path, arguments, files)

    multiprocessing.util.spawnv_passfds = spawn
