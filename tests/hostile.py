"""Command lines drawn from the tree of commands itself, with values by type and hostile ones.

A new command, option or variable named MNIST_SUITE_... is drawn from without a change here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import typer

from suite.cli import completion
from suite.cli.main import app
from suite.interpreter import ROOT

# --- values ---

PATHS = [
    "", " ", ".", "..", "/", "-", "~", "~/x", "~nobody", "~no_such_user/x", "./~x", "a\nb", "a\tb", "\x1b[31mred",
    "caf\u00e9", "\u202egnp", "\U0001f600", "\udcff", "pics/\udce9.png", "x" * 300, "x/" * 2500, "/dev/null",
    "/dev/full", "/dev/null/x", "/proc/self/environ", "/proc/self/mem", "/proc/self/fd/0", "/proc/1/x", "/sys/x.png",
    "/nowhere/x", "loop", "loop/x", "fifo", "file", "file/x", "missing", "hollow", "pics", "pics/a", "pics/a/1.png",
    "pics/broken.png", "pics/*.png", "pics/[", "**", "results", "results/one", "results/bad", "model", "badmodel",
    "mine.py", "./bad.py", "table.csv", "bad.csv", "weights.pth", "bad.pth", "new", "new/deep/x", "new.png", "new.html",
    "new.md", "NEW.PNG", "-x", "--", "con.", "a:b", "$HOME", "%s", "{}", "[red]x[/]",
]  # fmt: skip
NUMBERS = [
    "", "-1", "0", "1", "2", "-0.0", "0.5", "1.5", "1e3", "1e-320", "1e400", "-1e400", "nan", "inf", "-inf", "abc",
    "0x10", "1_0", "\uff11", "\u0663", " 3 ", "3\n", "\u00bd", "9" * 5000, "2147483647", "2147483648",
    "9223372036854775808", "-9223372036854775809",
]  # fmt: skip
NAMES = [
    "one", "bad", "one/0000", "one/", "/one", "bad/0000", "one/../one", "one-final", "..", ".hidden", "CON", "null",
    "None", "timm:", "timm:resnet18", "timm:no_such", "timm:timm:x", "timm:vit_base_patch16_224", "folder:",
    "folder:pics", "folder:hollow", "folder:fifo", "folder:loop", "folder:/proc/self/fdinfo", "folder:~nobody", "csv:",
    "csv:table.csv", "csv:bad.csv", "csv:pics", "cuda:99", "cuda:-1", "cuda:0,cuda:0", "cuda:x", "mps", "cpu:1", "meta",
    "sqlite:///x.db", "sqlite:////proc/x.db", "nonsense://x", "postgresql+psycopg://u:pw@127.0.0.1:1/x", "mysql://x",
    "a,b", ",", ",,", "cnn-scratch", "cnn-scratch,cnn-scratch", "accuracy,accuracy", "accuracy,nonsense", "lr=0.1",
    "epochs=1", "epochs=1e400", "lr=nan", "lr=", "=", "a=b=c", "__class__=1", "strategy.head.k=0", "recipe=1",
    "augment.shift=-1", "batch_size=0", "batch_size=99999999999", "momentum=[0,1]", "precision=fp8", "size=1e9",
    "[" * 5000,
]  # fmt: skip
KNOWN: dict[str, list[str]] = {  # what works, by the name of the parameter, beside what the shell completes
    "experiment": ["mnist", "tutorial", "./mine.py"],
    "model": ["model"],
    "images": ["pics", "pics/a/1.png", "pics/**/*.png"],
    "trial": ["one", "one/0000"],
    "study": ["one", "one", "bad", "new"],
    "source": ["one", "weights.pth", "model"],
    "dataset": ["mnist", "folder:pics", "csv:table.csv"],
    "backbone": ["cnn", "net", "timm:test_vit"],
    "settings": ["lr=0.05", "epochs=1", "batch_size=16", "augment.shift=1", "balance=loss", "momentum=0.5"],
    "to": ["new", "new.png", "new.html", "new.md"],
    "show": ["new"],
    "results": ["results", "hollow"],
    "path": ["pics", "file"],
    "arms": ["cnn-scratch"],
    "columns": ["accuracy,flops", "accuracy,lr"],
    "sort": ["accuracy", "flops", "params"],
    "workers": ["1", "2", "auto"],
    "population": ["1", "2", "auto"],
    "device": ["cpu", "auto"],
    "storage": ["sqlite:///new.db"],
    "reason": ["no reason"],
    "name": ["mnist", "train"],
}

# --- environments ---

ENVIRONMENTS: dict[str, list[str | None]] = {  # None: not set
    "HOME": [None, "", "/nowhere", "/proc/1", "loop", "file", ".", "\udcff"],
    "MNIST_SUITE_CACHE": [None, *PATHS],
    "MNIST_SUITE_RESULTS": [None, *PATHS],
    "TMPDIR": ["/nowhere", "file", ""],
    "XDG_CACHE_HOME": ["", "/proc/1", "file", "\udcff"],
    "TERM": [None, "", "dumb", "unknown", "xterm-256color", "\x1b[31m", "x" * 999],
    "LANG": ["C", "POSIX", "de_DE.ISO-8859-1", "nonsense"],
    "LC_ALL": ["C", "tr_TR.UTF-8", "nonsense"],
    "PYTHONIOENCODING": ["ascii", "latin-1", "utf-16", "ascii:strict", ":strict"],
    "COLUMNS": ["0", "-1", "1", "abc", "99999", ""],
    "LINES": ["0", "-1", "abc"],
    "OMP_NUM_THREADS": ["abc", "0", "-1", "1,2", "", "999999999999"],
    "GOMP_SPINCOUNT": ["abc", "-1"],
    "CUDA_VISIBLE_DEVICES": ["", "-1", "abc", "0,0", "GPU-0", "9" * 99],
    "FORCE_COLOR": ["1", "", "abc"],
    "NO_COLOR": ["1", ""],
    "CI": ["true", "1"],
    "TTY_INTERACTIVE": ["0", "1"],
    "PYTHONPATH": [".", "file", "/nowhere", ""],
    "PATH": [None, "", "file"],
    "TZ": ["nonsense", "\x1b", ":/dev/null"],
    "TORCH_HOME": ["/proc/1"],
    "HF_HOME": ["file"],
    "RAY_ADDRESS": ["nonsense"],
    "TEXTUAL": ["debug", "abc"],
    "_MNIST_SUITE_COMPLETE": ["complete_bash", "complete_zsh", "complete_fish", "source_bash", "nonsense", ""],
    "COMP_WORDS": ["mnist-suite sweep --arms ", "mnist-suite sweep '", "\n"],
    "COMP_CWORD": ["3", "-1", "abc"],
    "_TYPER_COMPLETE_ARGS": ["mnist-suite ", "mnist-suite data fetch '"],
}  # fmt: skip


def variables() -> dict[str, list[str | None]]:
    """The environment variables to set, with values; those of our own are found in the source code."""
    own = {
        name
        for folder in ("suite", "tui")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"MNIST_SUITE_[A-Z_]+", path.read_text("utf-8"))
    }
    values: list[str | None] = [*NUMBERS, *NAMES[-4:]]
    return dict.fromkeys(sorted(own), values) | ENVIRONMENTS


# --- command lines ---


@dataclass
class Case:
    """One command line, with its surroundings."""

    words: list[str]
    environment: dict[str, str | None] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)  # "in", "out", "err": closed, gone, a path
    signal: tuple[int, float] | None = None  # and seconds after the start
    fresh: bool = False  # in an interpreter of its own


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with the words that call it."""
    command = command or typer.main.get_command(app)
    if below := getattr(command, "commands", None):
        for name, one in below.items():
            yield from commands(one, (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands())
VARIABLES = variables()
LONG = {  # commands that may train, download or wait for long, unless they are told to --dry-run
    ("sweep",), ("pretrain",), ("finetune",), ("evaluate",), ("rerun",), ("bench",), ("tui",), ("data", "fetch"),
    ("data", "sample"), ("compress",), ("serve",), ("explain",), ("export",), ("push",),
}  # fmt: skip


def is_long(words: list[str]) -> bool:
    """Whether the command line may train or wait for long."""
    waits = "--watch" in words or "--serve" in words or "fifo" in words
    return waits or (not {"--dry-run", "--help"} & {*words} and any(tuple(words[: len(c)]) == c for c in LONG))


def known(path: tuple[str, ...], parameter: Any) -> list[str]:
    """Values that are right, as far as the name tells."""
    name = parameter.name
    found = [*KNOWN.get(name, []), *completion.VALUES.get(name, ())]
    if complete := completion.NAMES.get(f"{path[-1]} {name}", completion.NAMES.get(name)):
        found += complete(SimpleNamespace(params={"results": "/nowhere"}), "")
    low, high = parameter.min, parameter.max
    return found + [str(number) for number in (low, high, 1, 2, 3) if number is not None] * (not found)


def value(path: tuple[str, ...], parameter: Any, random: Random) -> str:
    """A value of a parameter: right, hostile by its type, or any."""
    kind = parameter.type_descriptor.annotation
    right, luck = known(path, parameter), random.random()
    if right and luck < 0.7:
        return random.choice(right)
    if kind in (int, float) and luck < 0.95:
        edges = [str(edge + step) for edge in (parameter.min, parameter.max) if edge is not None for step in (-1, 0, 1)]
        return random.choice([*NUMBERS, *edges, *edges])
    pool = PATHS if "path" in str(kind).lower() and luck < 0.9 else [*PATHS, *NUMBERS, *NAMES, *NAMES]
    if parameter.name in ("images", "path"):
        pool = [path for path in pool if path not in ("/", "..")]  # all that is below is read, as asked
    return random.choice(pool)


def words(random: Random) -> list[str]:
    """The words of a command line."""
    path = random.choice([*COMMANDS])
    command = COMMANDS[path]
    options, arguments = [], []
    for parameter in command.params:
        positional = parameter.param_type_name == "argument"
        wanted = 0.95 if parameter.required else 0.6 if positional else 2.5 / len(command.params)
        if random.random() > wanted:
            continue
        name = random.choice(parameter.opts + parameter.secondary_opts)
        if positional:
            arguments += [
                value(path, parameter, random) for _ in range(random.choice([1, 1, 2]) if parameter.nargs < 0 else 1)
            ]
        elif parameter.is_flag:
            options.append(name)
        elif random.random() < 0.2 and name.startswith("--"):
            options.append(f"{name}={value(path, parameter, random)}")
        else:
            options += [name, value(path, parameter, random)]
    if random.random() < 0.08:
        junk = ["--no-such", "--help", "-h", "--", "-", "--json", "--quiet", "--seed", "-qq", random.choice(NAMES)]
        options.insert(random.randrange(len(options) + 1), random.choice(junk))
    if any(word.startswith("-") for word in arguments) and random.random() < 0.8:
        arguments.insert(0, "--")
    drawn = [*path, *options, *arguments]
    return drawn if random.random() < 0.98 else random.sample(drawn, random.randrange(len(drawn) + 1))


def short(drawn: list[str], random: Random) -> list[str]:
    """The same, so that a training is small where nothing else was drawn; what starts servers is only checked."""
    path = tuple(drawn[:1])
    command = COMMANDS.get(path)
    if command is None or path not in LONG:
        return drawn
    has = {name for parameter in command.params for name in parameter.opts}
    given = {word.partition("=")[0] for word in drawn}
    elsewhere = any("ray" in word or "postgres" in word or "mysql" in word for word in drawn)
    added: list[str] = []
    if "--dry-run" in has and (elsewhere or random.random() < 0.7):
        added.append("--dry-run")
    small = {"--limit": "40", "--trials": "2", "--arms": "cnn-scratch", "--seeds": "1", "--top": "1"}
    for option, number in small.items():
        if option in has and option not in given and (option != "--arms" or random.random() < 0.7):
            added += [option, number]
    if "--set" in has:
        added += ["--set", "epochs=1", "--set", "batch_size=16"]
    return [*path, *added, *drawn[1:]]


def draw(random: Random) -> Case:
    """A case, which the state of `random` tells."""
    case = Case(short(words(random), random))
    if random.random() < 0.5:
        for name in random.sample([*VARIABLES], random.choice([1, 1, 2, 3])):
            case.environment[name] = random.choice(VARIABLES[name])
    if random.random() < 0.3:
        kinds = {"in": ["closed", "lines", "/dev/null", "noise"], "out": ["closed", "gone", "/dev/full"]}
        kinds["err"] = kinds["out"]
        stream = random.choice(["in", "in", "out", "out", "err"])
        case.streams[stream] = random.choice(kinds[stream])
        if stream == "out" and random.random() < 0.2:
            case.streams["err"] = case.streams["out"]
    if random.random() < 0.12:
        case.signal = random.choice([2, 15]), random.random() ** 2 * 3
    case.fresh = "PATH" not in case.environment and random.random() < 0.06
    return case
