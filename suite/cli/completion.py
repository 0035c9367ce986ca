"""What a shell completes: studies, experiments, arms, backbones and other names, without loading what uses them.

A shell starts the program at every press of the key, so nothing here imports torch, and no file of the user is run.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from suite.errors import InputError
from suite.interpreter import ROOT

BACKBONES = ("cnn", "net", "lean-xxs", "lean-xs", "lean-s", "lean-m", "lean-l")
VALUES = {  # by the name of the parameter
    "strategy": (
        "head",
        "full",
        "lp-ft",
        "partial",
        "norm-only",
        "bitfit",
        "lora",
        "prune",
        "low-rank",
        "int8",
        "scratch",
    ),
    "head": ("linear", "mlp", "ridge", "logreg", "knn"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "fit": ("crop", "pad", "squeeze"),
    "engine": ("local", "ray"),
    "predict format": ("safetensors", "onnx", "int8", "torch-export"),
    "serve format": ("safetensors", "onnx", "int8", "torch-export"),
    "formats": ("safetensors", "onnx", "int8", "torch-export"),
    "methods": ("saliency", "integrated-gradients", "grad-cam", "occlusion"),
    "tta": ("shift", "flip"),
}


def answer(command: Any) -> NoReturn:
    """Answer the request of a shell that environment variables hold, and exit.

    Raises:
        InputError: The variables are no request, such as one without the words on the command line.
    """
    attach(command)
    try:
        command(prog_name="mnist-suite")
    except (LookupError, ValueError) as error:
        raise InputError(f"The variables of the shell's completion cannot be read: {error!r}.") from None
    raise SystemExit(0)


def attach(command: Any, path: str = "") -> None:
    """Let every parameter of a command and of those below it complete what its name, or its command's, stands for."""
    for name, below in getattr(command, "commands", {}).items():
        attach(below, name)
    for one in command.params:
        if complete := NAMES.get(f"{path} {one.name}", NAMES.get(one.name)):
            one.shell_complete = partial(_items, complete)
        elif values := VALUES.get(f"{path} {one.name}", VALUES.get(one.name)):
            one.shell_complete = partial(_items, lambda ctx, incomplete, values=values: _matching(incomplete, values))


def _items(complete: Callable[[Any, str], list[str]], ctx: Any, incomplete: str) -> list[SimpleNamespace]:
    """The completions as objects that Typer's shells take."""
    return [SimpleNamespace(value=value, type="plain", help=None) for value in complete(ctx, incomplete)]


def studies(ctx: Any, incomplete: str) -> list[str]:
    """The studies in the results directory."""
    return _matching(incomplete, _studies(ctx))


def trials(ctx: Any, incomplete: str) -> list[str]:
    """The studies, and after a slash the trials of one."""
    study, slash, _ = incomplete.partition("/")
    if not slash:
        return studies(ctx, incomplete)
    return _matching(
        incomplete, [f"{study}/{path.parent.name}" for path in _found(ctx, f"{study}/trials/*/trial.json")]
    )


def experiments(ctx: Any, incomplete: str) -> list[str]:
    """The built-in experiments."""
    return _matching(incomplete, [path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")])


def arms(ctx: Any, incomplete: str) -> list[str]:
    """The arms of a built-in experiment; after a comma those that are not yet chosen. No other file is run."""
    name = ctx.params.get("experiment") or "mnist"
    if name not in experiments(ctx, ""):
        return []
    from suite.spec.load import load_experiment

    chosen = incomplete.split(",")[:-1]
    rest = [arm for arm in load_experiment(name).arms if arm not in chosen]
    return _matching(incomplete, [",".join([*chosen, arm]) for arm in rest])


def backbones(ctx: Any, incomplete: str) -> list[str]:
    """Our own backbones, and after "timm:" those of timm."""
    if incomplete.startswith("timm:"):
        return _matching(incomplete, [f"timm:{name}" for name in timm_names()])
    return _matching(incomplete, [*BACKBONES, "timm:"])


def timm_names() -> list[str]:
    """The architectures that timm registers, read from its source code: importing it takes seconds."""
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return []
    names: set[str] = set()
    for path in (Path(spec.origin).parent / "models").glob("*.py"):
        names.update(re.findall(r"^@register_model\n(?:@.*\n)*def (\w+)", path.read_text("utf-8"), re.MULTILINE))
    return sorted(names)


def datasets(ctx: Any, incomplete: str) -> list[str]:
    """The data sets that are known by name, and the two ways to name one's own."""
    from suite.data.registry import DATASETS

    return _matching(incomplete, [*DATASETS, "folder:", "csv:"])


def benchmarks(ctx: Any, incomplete: str) -> list[str]:
    from suite.bench.registry import BENCHMARKS

    return _matching(incomplete, BENCHMARKS)


def _studies(ctx: Any) -> list[str]:
    return [path.parent.name for path in _found(ctx, "*/study.json")]


def _found(ctx: Any, pattern: str) -> list[Path]:
    """The files of a pattern below the results directory; none where it cannot be read."""
    root = ctx.params.get("results") or os.environ.get("MNIST_SUITE_RESULTS") or "results"
    try:
        return list(Path(root).expanduser().glob(pattern))
    except (OSError, RuntimeError, ValueError):  # no such home directory; no pattern
        return []


def _matching(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


NAMES: dict[str, Callable[[Any, str], list[str]]] = {  # by parameter, or by command and parameter
    "study": studies,
    "studies": studies,
    "trial": trials,
    "export trials": trials,
    "source": trials,
    "experiment": experiments,
    "arms": arms,
    "backbone": backbones,
    "dataset": datasets,
    "verify names": datasets,
    "fetch names": datasets,
    "sample name": datasets,
    "bench name": benchmarks,
}
