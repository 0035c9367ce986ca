"""Starts command lines as forks of one process that has imported everything; tests/conftest.py runs it.

Starting Python with torch and optuna takes seconds, and the tests start some hundred command lines. A fork has a
process group, files, environment and signals of its own, and runs the same code from `main()` on. Each line on standard
input asks for one; the answer is its pid, and how it ended is written to a file.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback

import optuna
import scipy.special  # noqa: F401  # as some commands do
import torch
from scipy.stats import qmc

import suite.cli.console
import suite.cli.main
import suite.execution.sweep
import suite.ranking.leaderboard
import suite.store.events
from suite.data import datasets
from suite.hardware import flops
from suite.interpreter import isolate
from tests import nursery

# Options of commands that may start worker processes.
WITH_WORKERS = {"--workers", "--trial-timeout", "--memory-limit"}


def kill_at(when: str, what: str, count: str) -> None:
    """This process kills itself before or after it writes what, an event or a file, for the so manieth time."""
    left, append, replace = int(count), suite.store.events.EventWriter.append, os.replace

    def perhaps(moment: str, name: str) -> None:
        nonlocal left
        if (moment, name) == (when, what):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    def appended(writer, event):  # type: ignore[no-untyped-def]
        perhaps("before", event.kind)
        line = append(writer, event)
        perhaps("after", event.kind)
        return line

    def replaced(source, target):  # type: ignore[no-untyped-def]
        perhaps("before", os.path.basename(target))
        replace(source, target)
        perhaps("after", os.path.basename(target))

    suite.store.events.EventWriter.append, os.replace = appended, replaced


def forget(environment: dict[str, str]) -> None:
    """Drop images that were read from another cache than that of an environment."""
    if any(environment.get(name) != os.environ.get(name) for name in ("MNIST_SUITE_CACHE", "HOME")):
        datasets._training.cache_clear()


# what a command would import or compute first
datasets._training("mnist")
optuna.create_study(storage="sqlite://")  # in memory
qmc.Sobol(1)
flops.count(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)), (1, 4, 4))
print("ready", flush=True)  # noqa: T201
for line in sys.stdin:
    asked = json.loads(line)
    if os.fork():
        os.waitpid(-1, os.WNOHANG)  # one that has ended, if any
        continue
    if "nursery" in asked:  # for a process that is none of these commands
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as requests:
            requests.connect(asked["nursery"])
            print("ready", flush=True)  # noqa: T201
            nursery.attend(requests, forget)
    pid = os.fork()  # this process keeps it: it says the pid, and then how it ended
    if pid:
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        with open(asked["rc"] + ".tmp", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        os.rename(asked["rc"] + ".tmp", asked["rc"])
        os._exit(0)
    os.setsid()
    own = os.getpid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it as ignored
    if asked["host"]:  # a name of its own: another machine, as far as the suite can tell
        ctypes.CDLL(None).unshare(0x04000000)
        socket.sethostname(asked["host"])
    if asked["core"] is not None:
        os.sched_setaffinity(0, {asked["core"]})
    os.chdir(asked["cwd"])
    forget(asked["env"])
    os.environ.clear()
    os.environ.update(asked["env"])
    tempfile.tempdir = None
    isolate()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # while 0 to 2 are taken
    for number, path in ((0, asked["in"]), (1, asked["out"]), (2, asked["err"])):
        if path == "closed":
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        elif path == "gone":  # a pipe that nobody reads
            reader, writer = os.pipe()
            os.dup2(writer, number)
            os.close(writer)
            os.close(reader)
        else:
            os.dup2(os.open(path, os.O_WRONLY * (number > 0) | os.O_CREAT, 0o644), number)
    for stream in (sys.stdout, sys.stderr):  # as Python does when it starts
        if stream is not None and (wanted := asked["env"].get("PYTHONIOENCODING")):
            encoding, _, errors = wanted.partition(":")
            stream.reconfigure(encoding=encoding or None, errors=errors or None)
    if WITH_WORKERS & {*asked["argv"]} and not asked.get("spawns"):
        if not os.fork():
            here.close()
            nursery.attend(there, forget)
        nursery.take_workers_from(here)
    there.close()
    if "KILL_AT" in os.environ:  # this process, not its workers
        kill_at(*os.environ["KILL_AT"].split())
    if asked.get("signal"):
        number, seconds = asked["signal"]
        if not os.fork():
            os.chdir("/")
            time.sleep(seconds)
            if os.getppid() == own:
                os.kill(own, number)
            os._exit(0)
    sys.argv = ["mnist-suite", *asked["argv"]]
    code = 1
    try:
        suite.cli.main.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        with open(asked["rc"] + ".trace", "w") as file:  # standard error may be what has gone
            traceback.print_exc(file=file)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        code = 120  # as of Python
    os._exit(code)
