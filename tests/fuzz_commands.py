"""Runs drawn command lines and judges how they end: no traceback, no exit code but the documented ones, no hanging.

    python -m tests.fuzz_commands --runs 2000 --seed 7       prints what goes wrong, by kind
    python -m tests.fuzz_commands --seed 7 --only 123        one of them, with what it prints

Each run has a folder, a home and an environment of its own. Run as root, the commands see a file system that they can
only read, apart from that folder, and no network; run as somebody else, they have that person's rights.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
from PIL import Image, ImageDraw

from suite.errors import printable
from suite.interpreter import command
from suite.store.files import cache_dir
from tests.conftest import Running, Starter
from tests.hostile import Case, draw, is_long

ALLOWED = {0, 1, 2, 130, 143, -signal.SIGINT, -signal.SIGTERM}  # a shell calls the last two 130 and 143
LONG_SECONDS = 4.0  # after which a command that may take long is asked to stop
ENDING_SECONDS = 10.0  # for processes that a command has started
MOST_SECONDS = 90.0  # for all else, and to stop, on a busy machine

UNSAFE = "as root, hostile command lines run only where the file system can be made read-only for them"
CLEAN = ["env", "-u", "PYTHONUNBUFFERED"]  # a person's output is buffered
READ_ONLY = """
for place in $(cut -d' ' -f2 /proc/self/mounts); do
  case $place in /dev/shm*) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null ;; esac
done
exec "$@"
"""


def confined(folder: Path) -> list[str]:
    """The words that run a command where only `folder` can be written, if this user could harm anything else.

    Raises:
        PermissionError: This is root, and the file system cannot be made read-only.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("unshare") is None:
        raise PermissionError(UNSAFE)
    words = ["unshare", "--mount", "--net", "sh", "-c"]
    script = f"mount --bind '{folder}' '{folder}'\n" + READ_ONLY.replace("/dev/shm*)", f"/dev/shm*|{folder}*)")
    probe = subprocess.run([*words, script, "sh", "touch", "/.writable"], capture_output=True)
    if probe.returncode == 0 or b"Read-only" not in probe.stderr:
        Path("/.writable").unlink(missing_ok=True)
        raise PermissionError(UNSAFE)
    return [*words, script, "sh"]


# --- what lies around ---

EXPERIMENT = """
from suite.spec import Arm, Experiment, LogFloat, Recipe
EXPERIMENT = Experiment(
    name="mine", question="?", dataset="mnist", trials=2, limit=40,
    arms={"cnn-scratch": Arm(backbone="cnn", recipe=Recipe(epochs=1))}, space={"lr": LogFloat(low=1e-2, high=0.2)},
)
"""
LINES = '{"image": "pics/a/1.png"}\n{"pixels": [[0, 1], [2]]}\n[]\n"\\u0000"\n{"image": "\\u0000"}\nnonsense\n{}\n'


def furnish(folder: Path, starter: Starter) -> None:
    """Fill the folder that every run gets a copy of: a study, a damaged one, a model, pictures, tables, weights."""
    for label in "ab":
        (folder / "pics" / label).mkdir(parents=True)
        for number in range(12):
            picture = Image.new("L", (40, 40 + number))
            ImageDraw.Draw(picture).line((10, 8, 20 + number, 30), fill=250, width=3 + (label == "b"))
            picture.save(folder / "pics" / label / f"{number}.png")
    (folder / "pics" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "hollow").mkdir()
    (folder / "file").write_text("text\n")
    (folder / "loop").symlink_to("loop")
    (folder / "mine.py").write_text(EXPERIMENT)
    (folder / "bad.py").write_text("raise RuntimeError('a\\nb')")
    (folder / "bad.pth").write_bytes(b"PK\x03\x04 no more")
    (folder / "bad.csv").write_bytes(b"path,label\n\xff,\x00\nnowhere.png,a\n")
    with (folder / "table.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([f"pics/{label}/{number}.png", label] for label in "ab" for number in range(12))
    (folder / "noise").write_bytes(Random(0).randbytes(5000))
    (folder / "lines").write_text(LINES)
    small = ["--arms", "cnn-scratch", "--limit", "40", "--set", "epochs=1", "--set", "batch_size=16", "--device", "cpu"]
    environment = {"MNIST_SUITE_RESULTS": str(folder / "results"), "MNIST_SUITE_CACHE": str(cache_of(folder))}
    for words in (
        ["sweep", "mnist", *small, "--trials", "2", "--study", "one", "--quiet"],
        ["export", "one", "--to", "model"],
    ):
        running = starter(*words, cwd=folder, **environment)
        assert running.wait(300) == 0, running.errors
    for name in ("results/bad", "badmodel"):
        shutil.copytree(folder / ("results/one" if "/" in name else "model"), folder / name)
    for number, path in enumerate(sorted(path for path in (folder / "results/bad").rglob("*") if path.is_file())):
        content = path.read_bytes()
        path.write_bytes([content, content[: len(content) // 2], content, content.replace(b"0", b"1e999")][number % 4])
    (folder / "badmodel" / "model.json").write_text("{}")
    weights = next(iter(sorted((folder / "model").glob("*.safetensors"))))
    shutil.copy(weights, folder / "weights.pth")


def cache_of(folder: Path) -> Path:
    return folder.parent / "cache"


def link_cache(place: Path) -> None:
    """A cache whose data sets are links to the files of this person's, which are never written."""
    for source in (cache_dir() / "data").rglob("*"):
        target = place / "data" / source.relative_to(cache_dir() / "data")
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif source.name != ".lock":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


# --- runs ---


@dataclass
class Outcome:
    number: int
    case: Case
    code: int | None
    seconds: float
    output: str
    errors: str
    stopped: bool  # by a signal of ours
    left: int = 0  # processes that it has started and not ended
    kind: str = ""  # of the fault; empty: none


@dataclass
class Fuzz:
    """Runs cases in folders below `base`, each the copy of one template."""

    base: Path
    seed: int
    starter: Starter = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.within = confined(self.base)
        link_cache(self.base / "cache")
        (self.base / "commands").mkdir()
        (self.base / "tmp").mkdir()
        self.starter = Starter(self.base / "commands", [*self.within, *CLEAN, f"TMPDIR={self.base / 'tmp'}"])

    @property
    def template(self) -> Path:
        return self.base / "template"

    def furnish(self) -> None:
        self.template.mkdir()
        furnish(self.template, self.starter)

    def run(self, number: int) -> Outcome:
        case = draw(Random(f"{self.seed}-{number}"))
        folder = self.base / f"run-{number}"
        shutil.copytree(self.template, folder, symlinks=True)
        os.mkfifo(folder / "fifo")
        try:
            began = time.monotonic()
            running, process = self._begin(case, folder)
            outcome = self._end(running, process, number, case, began)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        outcome.kind = fault(outcome)
        return outcome

    def _environment(self, case: Case, folder: Path) -> dict[str, str]:
        environment = {
            **os.environ,
            "HOME": str(folder),
            "TMPDIR": str(self.base / "tmp"),
            "MNIST_SUITE_CACHE": str(self.base / "cache"),
            "MNIST_SUITE_RESULTS": str(folder / "results"),
            "https_proxy": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        }
        for name in ("PYTHONSAFEPATH", "PYTHONUNBUFFERED"):
            environment.pop(name, None)
        for name, value in case.environment.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        return environment

    def _begin(self, case: Case, folder: Path) -> tuple[Running, subprocess.Popen[bytes] | None]:
        paths = {"in": os.devnull}
        for stream, kind in case.streams.items():
            paths[stream] = str(folder / kind) if kind in ("lines", "noise") else kind
        environment = self._environment(case, folder)
        if not case.fresh:
            with self.lock:
                asking = {**paths, "env": environment, "signal": case.signal}
                return self.starter(*case.words, cwd=folder, asking=asking), None
        with self.lock:
            self.starter.number += 1
            files = self.starter.folder / f"fresh-{self.starter.number}"
        redirections = ""
        for mark, stream in (("<", "in"), (">", "out"), ("2>", "err")):
            path = paths.get(stream, f"{files}.{stream}")
            redirections += f" {mark}&-" if path == "closed" else f" {mark}'{path}'" if path != "gone" else ""
        script = f'exec "$@"{redirections}'
        pipes: dict[str, int] = {}
        for stream in ("out", "err"):
            Path(f"{files}.{stream}").touch()
            if paths.get(stream) == "gone":
                reader, pipes["std" + stream] = os.pipe()
                os.close(reader)
        words = [*self.within, "sh", "-c", script, "sh", *command(*case.words)]
        process = subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **pipes)  # type: ignore
        for descriptor in pipes.values():
            os.close(descriptor)
        if case.signal:
            number, seconds = case.signal
            threading.Timer(0.3 + seconds, lambda: process.poll() is None and process.send_signal(number)).start()
        return Running(process.pid, files), process

    def _end(
        self, running: Running, process: subprocess.Popen[bytes] | None, number: int, case: Case, began: float
    ) -> Outcome:
        poll = process.poll if process else running.poll
        may_be_long, asked = is_long(case.words), False
        while (code := poll()) is None:
            passed = time.monotonic() - began
            if passed > MOST_SECONDS + LONG_SECONDS * may_be_long:
                break
            if may_be_long and not asked and passed > LONG_SECONDS:
                running.signal(signal.SIGTERM)
                asked = True
            time.sleep(0.01)
        seconds = time.monotonic() - began
        left = [] if code is None else left_running(self.base / f"run-{number}")
        running.signal(signal.SIGKILL, group=True)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        if process:
            process.wait()
        trace = Path(f"{running.files}.rc.trace")
        traced = trace.read_text() if trace.exists() else ""
        stopped = asked or case.signal is not None
        outcome = Outcome(number, case, code, seconds, running.output, running.errors + traced, stopped, len(left))
        for suffix in ("out", "err", "rc", "rc.trace"):
            Path(f"{running.files}.{suffix}").unlink(missing_ok=True)
        return outcome


def fault(outcome: Outcome) -> str:
    """What is wrong with the end of a command line, in words that are the same for the same fault; empty if nothing."""
    text = outcome.output + outcome.errors
    if outcome.code is None:
        return f"hangs: {outcome.case.words[:1]}"
    if "Traceback (most recent call last)" in text:
        places = re.findall(r'File "[^"]*?/((?:suite|tui|experiments)/[^"]+)", line \d+, in (\w+)', text)
        if not places and outcome.case.fresh and "KeyboardInterrupt" in text:
            return ""  # while Python itself was starting
        last = next((line for line in reversed(text.splitlines()) if re.match(r"[\w.]+(:|$)", line)), "")
        return f"traceback: {last[:70]} {':'.join(places[-1]) if places else ''}"
    if "Exception ignored" in text:
        return f"exception ignored: {text.partition('Exception ignored')[2][:80]!r}"
    if outcome.code not in ALLOWED:
        return f"exit code {outcome.code}: {outcome.case.words[:1]}"
    if outcome.code in (130, 143, -2, -15) and not outcome.stopped:
        return f"exit code {outcome.code} without a signal: {outcome.case.words[:1]}"
    if outcome.left:
        return f"processes left running: {outcome.case.words[:2]}"
    shown = "err" not in outcome.case.streams
    if outcome.code == 2 and shown and not text.strip():
        return f"exit code 2 without a word: {outcome.case.words[:1]}"
    if (
        outcome.code == 0
        and "--json" in outcome.case.words
        and "out" not in outcome.case.streams
        and not is_json(outcome)
    ):
        return f"no JSON: {outcome.case.words[:1]}"
    if "FORCE_COLOR" not in outcome.case.environment and "\x1b" in outcome.errors:
        return f"escape sequence: {outcome.case.words[:1]}"
    return ""


def left_running(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder, and do not end in time of their own accord."""
    end = time.monotonic() + ENDING_SECONDS
    while found := [
        one
        for one in psutil.process_iter(["cwd", "status"])
        if folder in (here := Path(one.info["cwd"] or "/"), *here.parents)
        and one.info["status"] != psutil.STATUS_ZOMBIE
    ]:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return found


def is_json(outcome: Outcome) -> bool:
    """Whether the output is JSON, whole or in lines."""
    try:
        json.loads(outcome.output)
    except ValueError:
        try:
            [json.loads(line) for line in outcome.output.splitlines()]
        except ValueError:
            if outcome.case.environment.get("PYTHONIOENCODING") == "utf-16":
                return True
            return "Usage:" in outcome.output or "_MNIST_SUITE_COMPLETE" in outcome.case.environment
    return True


def fuzz(numbers: Iterable[int], seed: int, seconds: float = float("inf"), jobs: int = 2) -> Iterator[Outcome]:
    """Run the cases of these numbers, or as many of them as begin in so many seconds after the set-up."""
    base = Path(tempfile.mkdtemp(prefix="mnist-suite-fuzz-"))
    with contextlib.ExitStack() as context:
        context.callback(shutil.rmtree, base, ignore_errors=True)
        own = Fuzz(base, seed)
        context.callback(own.starter.close)
        own.furnish()
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(jobs) as pool:
            yield from filter(None, pool.map(lambda n: own.run(n) if time.monotonic() < end else None, numbers))


def said(outcome: Outcome, most: int = 3000) -> str:
    """One run for a person: what was asked, and how it ended."""
    case = outcome.case
    how = f"{case.words} {case.environment} {case.streams} signal={case.signal} fresh={case.fresh}"
    head = f"#{outcome.number} code {outcome.code} in {outcome.seconds:.1f} s: {printable(outcome.kind or 'fine')}"
    return f"{head}\n  {how[:most]}\n{outcome.errors[-most:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, nargs="+")
    parser.add_argument("--verbose", action="store_true", help="print every run")
    asked = parser.parse_args()
    codes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for outcome in fuzz(asked.only or range(asked.runs), asked.seed, jobs=asked.jobs):
        codes[str(outcome.code)] += 1
        if outcome.kind:
            kinds[outcome.kind] += 1
        if asked.only or asked.verbose or (outcome.kind and kinds[outcome.kind] <= 3):
            print(ascii(said(outcome)).replace("\\n", "\n"), flush=True)  # noqa: T201
    print(f"seed {asked.seed}, {codes.total()} runs; exit codes {dict(codes.most_common())}")  # noqa: T201
    for kind, count in kinds.most_common():
        print(f"{count:5}  {kind!a}")  # noqa: T201
    raise SystemExit(1 if kinds else 0)


if __name__ == "__main__":
    main()
