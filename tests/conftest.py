"""Shared by all tests: real data in the cache, small slices of it, and a way to run the real command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing.util
import os
import pickle
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from hypothesis import settings

from suite.hardware.openmp import bound_spinning
from suite.ranking.final import FinalEvaluation
from suite.spec import Arm, Caps, Choice, Experiment, HeadOnly, LogFloat, Pretraining, Pruning, Recipe, Trial
from suite.store.study import StudyDir
from tests.nursery import take_workers_from

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and so do the programs that they start
bound_spinning()  # here, since torch is loaded before a command line's own main() in tests/zygote.py

# A busy machine may take any time over an example, and the first one may import torch. Each run draws other examples.
settings.register_profile("busy", deadline=None, max_examples=int(os.environ.get("MNIST_SUITE_SOAK", "50")))
settings.load_profile("busy")

# One seed for whatever is random in a run of the fault tests; set before their processes start, so that they share it.
os.environ.setdefault("MNIST_SUITE_FAULT_SEED", str(random.SystemRandom().randrange(10**6)))

Command = Callable[..., subprocess.CompletedProcess[str]]


HEAVY = tuple(
    line for line in (Path(__file__).parent / "heavy.txt").read_text().splitlines() if line and not line.startswith("#")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what heavy.txt names. Test names change: where all tests are collected, each line must name one."""
    used: set[str] = set()
    for item in items:
        for line in HEAVY:
            if item.nodeid == line or item.nodeid.startswith((f"{line}::", f"{line}[")):
                item.add_marker("heavy")
                used.add(line)
    if len(items) > 2000 and (idle := set(HEAVY) - used):
        raise pytest.UsageError(f"tests/heavy.txt names no test by {sorted(idle)[0]}")


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""

    def call(*words: object) -> Done:
        from suite.cli import main

        monkeypatch.setattr(sys, "argv", ["mnist-suite", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Done(int(end.value.code or 0), out, err)

    return call


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A test leaves torch with as many threads as it found."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else None
    yield
    if torch is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """What a function makes in a new folder. Of the processes that share the tests one makes it, and all read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, make: Callable[[Path], Any]) -> Any:
        made = root / f"{name}.pickle"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                made.write_bytes(pickle.dumps(make(Path(tempfile.mkdtemp(prefix=name, dir=root)))))
            return pickle.loads(made.read_bytes())

    return get


# --- one small study, searched and finally evaluated, that tests of figures read but never change ---

LIMIT = 300  # images of each split
Made = Callable[..., Experiment]


@dataclass
class Opened:
    """Files of the test images that this process has opened since `watch` was set."""

    paths: list[str] = field(default_factory=list)
    watch: bool = False


@dataclass(frozen=True)
class Small:
    results: Path
    study: StudyDir
    outcome: FinalEvaluation
    opened_by_search: list[str]
    opened_by_evaluation: list[str]


@pytest.fixture(scope="session")
def made() -> Made:
    def make(trials: int = 6, caps: Caps | None = None, **changes: Any) -> Experiment:
        recipe = Recipe(epochs=3, batch_size=32, lr=0.05)
        return Experiment(
            name="small",
            question="Does <b>the</b> machinery hold | or not?",
            dataset="mnist",
            pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=1, lr=0.05)),
            arms={
                "net-scratch": Arm(backbone="net", recipe=recipe),
                "net-head": Arm(backbone="net", strategy=HeadOnly(), weights="experiment", recipe=recipe),
            },
            space={"lr": LogFloat(low=1e-2, high=0.2), "batch_size": Choice(values=(16, 32))},
            pruning=Pruning(first=1, factor=2),
            trials=trials,
            limit=LIMIT,
            caps=caps,
            **changes,
        )

    return make


def searched(experiment: Experiment, results: Path) -> StudyDir:
    from suite.execution.options import Options
    from suite.execution.stop import Stop  # here, so that tests without torch do not load it
    from suite.execution.sweep import sweep

    for _ in sweep(experiment, results, options=Options(device="cpu", command="the search"), stop=Stop()):
        pass
    return StudyDir(results, experiment.name)


@pytest.fixture(scope="session")
def search() -> Callable[[Experiment, Path], StudyDir]:
    return searched


@pytest.fixture(scope="session")
def opened() -> Opened:
    """Every `open` of this process goes by here, whatever code it comes from."""
    seen = Opened()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if seen.watch and event == "open" and "t10k" in str(arguments[0]):
            seen.paths.append(str(arguments[0]))

    sys.addaudithook(hook)
    return seen


@pytest.fixture(scope="session")
def small(once: Callable[..., Any], made: Made, opened: Opened) -> Small:
    from suite.evaluation import final
    from suite.execution.stop import Stop

    def make(folder: Path) -> tuple[Any, ...]:
        results = folder / "results"
        opened.watch = True
        study = searched(made(), results)
        by_search, opened.paths = opened.paths, []
        plan = final.plan(results, study, top=1, seeds=2, place="cpu", command="the evaluation")
        for _ in final.train(plan, stop=Stop()):
            pass
        by_search += opened.paths
        opened.paths = []
        outcome = final.judge(plan)
        opened.watch = False
        return results, study, outcome, by_search, opened.paths

    return Small(*once("figures", make))


# ---


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """A trial of the tutorial's cnn, with changes."""

    def make(**changes: object) -> Trial:
        facts: dict[str, object] = {
            "study": "s",
            "arm": "a",
            "number": 3,
            "dataset": "mnist",
            "data_hash": "d",
            "split_hash": "h",
            "fraction": 1.0,
            "backbone": "cnn",
            "weights": None,
            "size": None,
            "strategy": {"kind": "scratch"},
            "recipe": {},
            "params": {},
            "seed": 1,
            "device": "cpu",
            "threads": 1,
        }
        return Trial.model_validate(facts | changes)

    return make


# --- command lines ---


@dataclass
class Running:
    """One command line at work."""

    pid: int
    files: Path  # without suffix

    def poll(self) -> int | None:
        rc = Path(f"{self.files}.rc")
        return int(rc.read_text()) if rc.exists() else None

    def wait(self, seconds: float = 500.0) -> int:
        """Its exit code. A wait that is met ends at once, and the machine may be busy with other things."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)
        return code

    def signal(self, number: int, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    @property
    def errors(self) -> str:
        return Path(f"{self.files}.err").read_text(errors="replace")

    @property
    def output(self) -> str:
        return Path(f"{self.files}.out").read_text(errors="replace")


class Starter:
    """Starts command lines by forking a process that has imported everything, tests/zygote.py."""

    def __init__(self, folder: Path, within: Sequence[str] = ()) -> None:
        """`within`: words of a command that runs another one, such as `unshare`."""
        self.folder, self.number = folder, 0
        self.cores = sorted(os.sched_getaffinity(0))
        # as a string, so that a worker process that a fork spawns finds no main module to import again
        self.process = subprocess.Popen(
            [*within, sys.executable, "-c", Path(__file__).with_name("zygote.py").read_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # its forks' may be one, and Python asks only once whether it can seek
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        pinned: bool = False,
        host: str = "",
        stdin: str | Path = os.devnull,
        stderr: Path | None = None,
        asking: Mapping[str, Any] | None = None,
        **environment: str,
    ) -> Running:
        """`pinned` to one core; `host`: a host name of its own; `asking`: what else tests/zygote.py is asked, such as
        `spawns`, workers that are new Pythons; `environment`: what differs from that of the tests."""
        self.number += 1
        files = self.folder / f"{os.getpid()}-{self.number}"
        asked = {
            "argv": [str(a) for a in arguments],
            "cwd": str(cwd or self.folder),
            "env": {**os.environ, **environment},
            "host": host,
            "core": self.cores[self.number % len(self.cores)] if pinned else None,
            "in": str(stdin),
            **{kind: f"{files}.{kind}" for kind in ("out", "err", "rc")},
        }
        for kind in ("out", "err"):  # so that they can be read at once
            Path(f"{files}.{kind}").touch()
        if stderr is not None:
            asked["err"] = str(stderr)
        asked |= asking or {}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Running(int(self._line()), files)

    def nursery(self) -> socket.socket:
        """The end of a new one, tests/nursery.py, that gives workers to this process."""
        assert self.process.stdin is not None
        with (
            tempfile.TemporaryDirectory(dir="/tmp") as folder,  # sockets want a short path
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door,
        ):
            door.bind(f"{folder}/door")
            door.listen()
            self.process.stdin.write(json.dumps({"nursery": f"{folder}/door"}) + "\n")
            self.process.stdin.flush()
            assert self._line() == "ready"
            return door.accept()[0]

    def close(self) -> None:
        self.process.kill()  # of its own accord it would take seconds
        self.process.wait()


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("commands"))
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def cheap_workers(starter: Starter) -> Iterator[None]:
    """Worker processes that `multiprocessing` starts in this process have imported torch already."""
    spawn = multiprocessing.util.spawnv_passfds
    with starter.nursery() as nursery:
        take_workers_from(nursery)
        yield
    multiprocessing.util.spawnv_passfds = spawn


@pytest.fixture
def start(starter: Starter, tmp_path: Path) -> Callable[..., Running]:
    """Starts `mnist-suite ...` as a person would, in an empty folder with its results beside."""
    return partial(starter, cwd=tmp_path, MNIST_SUITE_RESULTS=str(tmp_path / "results"))


@pytest.fixture
def suite(start: Callable[..., Running]) -> Command:
    """The same, to its end."""

    def run(*arguments: object, timeout: float = 240, **options: Any) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, **options)
        try:
            code = process.wait(timeout)
        except AssertionError:
            process.signal(signal.SIGKILL, group=True)
            raise
        return subprocess.CompletedProcess([*map(str, arguments)], code, process.output, process.errors)

    return run


# --- damage ---


def damaged(path: Path, how: str, chance: random.Random) -> None:
    """Removes a file, cuts it off, flips three of its bits, or puts noise in its place."""
    content = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif how == "flip":
        for _ in range(3):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(chance.randbytes(len(content)))


@pytest.fixture(scope="session")
def hurt() -> Callable[[Path, str, random.Random], None]:
    return damaged


# --- Ray clusters ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Clusters:
    """Starts Ray clusters of one node; returns the environment with which to reach each."""

    def __init__(self, hidden: Path) -> None:
        self.hidden = hidden  # folder that nodes started with `apart` do not see
        self.begun: list[tuple[subprocess.Popen[bytes], str]] = []

    def __call__(
        self, *, apart: bool = False, mode: str = "token", cpus: int = 1, **environment_of_nodes: str
    ) -> dict[str, str]:
        port, folder = free_port(), tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets want a short path
        given = {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
        command = (
            f"{Path(sys.executable).parent}/ray start --head --block --port {port} --node-ip-address 127.0.0.1 "
            f"--num-cpus {cpus} --num-gpus 0 --include-dashboard false --temp-dir {folder} "
            "--object-store-memory 100000000"
        )
        if apart:
            command = f"mount -t tmpfs none {self.hidden} && exec {command}"  # in a mount namespace of its own
        words = [*(["unshare", "--mount"] if apart else []), "sh", "-c", command]
        environment = {**os.environ, **given, "MNIST_SUITE_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"}
        environment |= environment_of_nodes
        with open(f"{folder}/log", "w") as log:
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.begun.append((process, folder))
        end = time.monotonic() + 120
        while "Ray runtime started" not in (said := Path(folder, "log").read_text()):
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.05)
        return {**given, "RAY_ADDRESS": f"127.0.0.1:{port}"}

    def end(self) -> None:
        """Kill them, and all that they have started."""
        for process, folder in self.begun:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)
        self.begun.clear()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    clusters = Clusters(tmp_path_factory.getbasetemp())
    yield clusters
    clusters.end()


@pytest.fixture(scope="module")
def lasting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """The same, for clusters that several tests of a file share."""
    clusters = Clusters(tmp_path_factory.getbasetemp())
    yield clusters
    clusters.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the fault tests did, added up: figures of several runs can be added again."""
    reports = [r for group in terminalreporter.stats.values() for r in group if getattr(r, "when", "") == "teardown"]
    found = [value for report in reports for name, value in report.user_properties if name == "faults"]
    if not found:
        return
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for one in found:
        total.update({key: value for key, value in one.items() if isinstance(value, int)})
        faults.update(one["faults"])
    kinds = ", ".join(f"{kind} {count}" for kind, count in faults.most_common())
    terminalreporter.section("faults")
    for line in (
        f"seed {os.environ['MNIST_SUITE_FAULT_SEED']} (MNIST_SUITE_FAULT_SEED repeats it), {len(found)} tests",
        f"injected {faults.total()}: {kinds}",
        f"trials {total['planned']}: finished {total['finished']}, pruned {total['pruned']}, failed {total['failed']}, "
        f"lost {total['lost']}, duplicated {total['duplicated']}",
        f"studies resumed and compared {total['resumed']}, of them bit-identical {total['identical']}",
    ):
        terminalreporter.write_line(line)
