"""Types anything into every field of the dashboard, presses any key and clicks anywhere, while trials change on disk.

    python -m tests.fuzz_dashboard --events 10000 --seed 7

The dashboard may end by its keys for quitting only, and is then started again. Home, configuration, cache, results and
the current folder lie in a temporary folder, outside of which nothing may be written. Where the dashboard would start
a process, a harmless one takes its place (`harmless`). A sequence that does harm is shortened and printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from textual import events
from textual.errors import NoWidget
from textual.pilot import Pilot
from textual.worker import WorkerState

from suite.store.study import StudyDir
from tui.keys import MEANINGS, split
from tui.testing.bench import ManualDashboard
from tui.testing.synthetic import STATES, write_status, write_study, write_trial

HANGING = 60.0  # seconds for one event
SIZES = ((80, 24), (120, 40), (200, 60), (40, 12), (20, 5), (3, 2))
KEYS = tuple(dict.fromkeys(key for meaning in MEANINGS.values() for key in split(meaning.keys)))
MORE_KEYS = (
    *("tab", "shift+tab", "enter", "escape", "backspace", "delete", "space", "ctrl+a", "ctrl+e", "ctrl+k", "ctrl+w"),
    *("ctrl+x", "ctrl+v", "ctrl+p", "ctrl+l", "ctrl+right", "shift+left", "f2", "f10", "at", "ü", "漢"),
)
TEXTS = (
    *("/etc/passwd", "~m", "~nobody/x.py", "~", "..", "/", "/dev/null", "/proc/self/mem", "a" * 300, "x/" * 3000),
    *("", " ", "-1", "0", "1e999", "nan", "99999999999999999999", "٣", "²", "--help", "-", "'\"", "$(touch harm)"),
    *("[red]", "[/]", "[@click=app.quit]x[/]", "\x1b[31m", "\x00", "\ud800", "a\nb", "\u202eabc", "👩‍👩‍👧", "é" * 90),
    *("mnist", "mnist-2", "quick.py", "./none.py", "model", "cpu", "cuda:1,cuda:3", "local", "cnn", "head,full"),
    *("acc>.99", "flops<10M arm:head", "state:running -arm:cnn", "(((", "acc>", "lr<1e", "data:mnist best", "!", ":"),
)
WAYS = (  # to what a single key reaches seldom
    *(
        "e enter",
        "n ctrl+s y",
        "n tab tab ctrl+s y",
        "N ctrl+s y",
        "x y",
        "R y",
        "3 x y",
        "3 R y",
        "3 enter",
        "V a enter",
    ),
    *(
        "v enter",
        "C space J enter",
        "a down enter",
        "s down enter",
        "5 M enter",
        "5 M up enter",
        "5 i",
        "5 space right",
    ),
    *(
        "enter right right right",
        "enter e enter",
        "enter J d",
        "space space c",
        "slash",
        "? a",
        "ctrl+p down enter",
        "w ]",
    ),
    *("1", "2 ]", "2 ] ] ]", "3", "4", "5"),
)
NAMED = {"?": "question_mark", "]": "right_square_bracket"}  # keys of `WAYS`
CHANGES = ("trial", "trial", "status", "done", "study", "garbage", "no trial", "no study", "no results", "results")
Event = tuple[str, Any]


def draw(count: int, seed: int) -> list[Event]:
    """So many events, which depend on the seed alone."""
    rng = Random(seed)
    kinds: dict[str, Callable[[], Any]] = {
        "key": lambda: rng.choice(KEYS),
        "way": lambda: rng.choice(("", "escape escape 1 ")) + rng.choice(WAYS),
        "another key": lambda: rng.choice(MORE_KEYS),
        "text": lambda: rng.choice(TEXTS),
        "click": lambda: (rng.random(), rng.random(), rng.choice((1, 1, 2))),
        "scroll": lambda: (rng.random(), rng.random(), rng.choice((events.MouseScrollUp, events.MouseScrollDown))),
        "size": lambda: rng.choice(SIZES),
        "change": lambda: (rng.choice(CHANGES), rng.randrange(30)),
        "poll": lambda: None,
    }
    chosen = rng.choices(tuple(kinds), weights=(34, 8, 12, 10, 14, 4, 3, 6, 9), k=count)
    return [(kind, kinds[kind]()) for kind in chosen]


# --- the surroundings ---


class Surroundings:
    """A folder for everything, and what was found outside of it or in the background."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder.resolve(), folder.resolve() / "results"
        self.started: list[list[str]] = []  # commands
        self.harm: list[str] = []
        write_study(self.results)
        write_study(self.results, "other", ["finished", "running"])

    def change(self, what: str, number: int) -> None:
        """A change of the results by others."""
        study = StudyDir(self.results, "mnist")
        trials = sorted(study.trials_path.glob("*")) if study.trials_path.is_dir() else []
        if what == "results" or (what not in ("no study", "no results") and not study.path.is_dir()):
            shutil.rmtree(self.results, ignore_errors=True)
            write_study(self.results)
        elif what == "trial":
            write_trial(study, number, STATES[number % len(STATES)])
        elif what in ("status", "done"):
            write_status(study, STATES, running=what == "status")
        elif what == "study":
            write_study(self.results, f"study-{number % 4}", STATES[: number % 10], running=bool(number % 2))
        elif what == "garbage" and trials:
            files = sorted(path for path in trials[number % len(trials)].iterdir() if path.is_file())
            if files:
                files[number % len(files)].write_bytes(b'{"schema_version": 99}\n\xff\x00' * (number % 3))
        elif trials and what == "no trial":
            shutil.rmtree(trials[number % len(trials)])
        elif what in ("no study", "no results"):
            shutil.rmtree(study.path if what == "no study" else self.results, ignore_errors=True)


@contextlib.contextmanager
def harmless(around: Surroundings) -> Iterator[None]:
    """Where a process would be started, start one that ends at once, or that waits for the end of its input."""
    popen = subprocess.Popen

    class Harmless(popen):  # type: ignore[misc, valid-type]  # what `subprocess.run` and asyncio start, too
        def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
            words = [os.fsdecode(word) for word in args]
            around.started.append(words)
            if any("\x00" in word for word in words):
                raise ValueError("embedded null byte")  # as the operating system does
            ends = ("exit 0", "echo something; exit 3", "cat > /dev/null")
            super().__init__(["sh", "-c", ends[len(around.started) % len(ends)]], *rest, **options)

    subprocess.Popen = Harmless  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = popen  # type: ignore[misc]


WRITING = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.symlink": 1,
    "os.link": 1,
    "os.truncate": 0,
}


def watch_writing(around: Surroundings) -> None:
    """Note what is written outside of the folder. This lasts to the end of the process."""
    allowed = (str(around.folder), "/dev/", "/proc/self/fd")

    def hook(name: str, given: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = given
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif name in WRITING:
            path = given[WRITING[name]]
        else:
            return
        if isinstance(path, (str, bytes, os.PathLike)):
            place = os.path.abspath(os.fsdecode(path))
            if not place.startswith(allowed) and not place.endswith((".pyc", "__pycache__")) and ".pyc." not in place:
                around.harm.append(f"{name} {place}\n{''.join(traceback.format_stack(limit=8))}")

    sys.addaudithook(hook)


@contextlib.contextmanager
def confined(folder: Path) -> Iterator[Surroundings]:
    """Everything that belongs to a person lies in the folder."""
    for name in ("home", "config", "cache", "work", "tmp"):
        (folder / name).mkdir()
    os.environ.update(
        HOME=str(folder / "home"),
        XDG_CONFIG_HOME=str(folder / "config"),
        XDG_CACHE_HOME=str(folder / "cache"),
        MNIST_SUITE_CACHE=str(folder / "cache"),
        TMPDIR=str(folder / "tmp"),
        PYTHONDONTWRITEBYTECODE="1",
    )
    os.chdir(folder / "work")
    around = Surroundings(folder)
    watch_writing(around)
    threading.excepthook = lambda fault: around.harm.append("".join(traceback.format_exception(fault.exc_value)))
    with harmless(around):
        yield around


# --- one session ---


class Fuzzed(ManualDashboard):
    """Knows whether it was asked to quit."""

    asked_to_quit = False

    async def action_quit(self) -> None:
        self.asked_to_quit = True
        await super().action_quit()


async def happen(app: Fuzzed, pilot: Pilot[None], around: Surroundings, kind: str, what: Any) -> None:
    if kind in ("key", "another key"):
        app.simulate_key(what)
    elif kind == "way":
        for key in what.split():
            app.simulate_key(str(NAMED.get(key, key)))
            await pilot.pause()
    elif kind == "text":
        app.post_message(events.Paste(what))
    elif kind in ("click", "scroll"):
        width, height = app.size
        x, y = min(int(what[0] * width), width - 1), min(int(what[1] * height), height - 1)
        with contextlib.suppress(NoWidget):  # raised by the pilot: there is nothing at this place yet, or any more
            if kind == "click":
                await pilot.click(offset=(x, y), times=what[2])
            else:
                await pilot._post_mouse_events([what[2]], offset=(x, y), button=0)
    elif kind == "size":
        await pilot.resize_terminal(*what)
    elif kind == "change":
        around.change(*what)
    else:
        app.poll()
    await pilot.pause()


async def session(around: Surroundings, todo: list[Event], readonly: bool) -> tuple[int, str]:
    """Drive one dashboard until it is asked to quit or fails: the number of events, and the failure or ""."""
    done, began = 0, len(around.started)
    app = Fuzzed(around.results, readonly=readonly)
    app.animation_level = "none"
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            app.poll()
            for kind, what in todo:
                done += 1
                try:
                    await asyncio.wait_for(happen(app, pilot, around, kind, what), HANGING)
                except TimeoutError:
                    return done, "it hangs"
                if app.asked_to_quit or not app.is_running or app.fault is not None:
                    break
                bad = [worker.error for worker in app.workers if worker.state == WorkerState.ERROR]
                if bad:
                    return done, "".join(traceback.format_exception(bad[0]))
                if around.harm:
                    break
    except Exception as error:
        if not app.asked_to_quit or app.fault is not None:
            return done, "".join(traceback.format_exception(app.fault or error))
    if around.harm:
        return done, around.harm.pop()
    if app.fault is not None:
        return done, "".join(traceback.format_exception(app.fault))
    if done < len(todo) and not app.asked_to_quit:
        return done, "it ended unasked"
    for words in around.started[began:]:
        if readonly and "sweep" in words and "--dry-run" not in words:
            return done, f"read-only, it started {words}"
    return done, ""


def play(around: Surroundings, todo: list[Event]) -> tuple[int, str]:
    """Every third session is read-only. Returns the number of events up to the first failure, and that."""
    place, sessions = 0, 0
    while place < len(todo):
        done, failure = asyncio.run(session(around, todo[place:], readonly=sessions % 3 == 2))
        place, sessions = place + max(done, 1), sessions + 1
        if failure:
            return place, failure
    return place, ""


def shortened(around: Surroundings, failed: list[Event], failure: str) -> list[Event]:
    """A shorter sequence that ends in the same failure, if there is one."""
    last = failure.strip().splitlines()[-1]

    def fails(some: list[Event]) -> bool:
        around.change("results", 0)
        return play(around, some)[1].strip().splitlines()[-1:] == [last]

    kept = next((failed[-n:] for n in (5, 20, 80, 320) if n < len(failed) and fails(failed[-n:])), failed)
    if len(kept) > 100:
        return kept
    for event in list(kept[:-1]):
        without = [other for other in kept if other is not event]
        if fails(without):
            kept = without
    return kept


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Press, type and click anything in the dashboard.")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder, confined(Path(folder).resolve()) as around:
        todo = draw(given.events, given.seed)
        place, failure = play(around, todo)
        say(f"seed {given.seed}: {place} events, {len(around.started)} commands would have been started")
        if not failure:
            os.chdir("/")
            return 0
        say(f"\nAfter event {place}:\n{failure}\nThe same after:")
        for event in shortened(around, todo[:place], failure):
            say(f"  {event!r}")
        os.chdir("/")
    return 1


if __name__ == "__main__":
    sys.exit(main())
