"""Options that several commands share, and a way to declare a command's options as one dataclass.

Every number is declared with its smallest and its largest value, so that Typer refuses nan and infinity as well.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from suite.errors import InputError, expand_user, printable

LARGEST = 2**31 - 1  # of whole numbers


def path_option(name: str, **facts: Any) -> Any:
    """`typer.Option` for a path, which `expand_user` reads: "~" is expanded, and what is no path is refused."""
    return typer.Option(name, parser=partial(expand_user, given_by=name), metavar="<path>", **facts)


def path_argument(**facts: Any) -> Any:
    """`typer.Argument` for a path, as `path_option`."""
    return typer.Argument(parser=partial(expand_user, given_by="The path"), **facts)


Results = Annotated[
    Path | None,
    path_option("--results", help="Results directory.", envvar="MNIST_SUITE_RESULTS", show_default="./results"),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress on stderr.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="File of the model to run: safetensors, onnx, int8 or torch-export; onnx and int8 need "
        "mnist-suite[onnx] and load no PyTorch.",
        show_default="the first that is there",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that runs a study."""

    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set one value: lr=0.05, epochs=3, strategy.head.hidden=512, layer_decay=0.8; for photos "
            "augment.crop=0.35, augment.flip=true, augment.color=0.4, augment.trivial=true, augment.mixup=0.2, "
            "augment.cutmix=1; for uneven classes balance=sampler or balance=loss. May be repeated.",
        ),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=20, max=LARGEST, help="Use at most N images of each split, for a quick try.")
    ] = None
    study: Annotated[str | None, typer.Option(help="Name of the study in the results directory.")] = None
    device: Device = "auto"
    results: Results = None
    as_json: Json = False
    quiet: Quiet = False
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out pictures of your own that cannot be read.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every choice, print what would run, and exit; --json: in full.")
    ] = False


Options = TypeVar("Options")


def takes(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Decorator for commands with many options: declare them as the fields of a dataclass.

    Typer reads the signature of a command. The decorated function has one keyword parameter for each field, with the
    field's annotation and default, and calls the command with one instance of the dataclass. In `--help` the fields of
    the class itself come before those of its base classes.

    Args:
        kind: A dataclass with `kw_only=True` whose fields have types that Typer understands.
    """
    hints = get_type_hints(kind, include_extras=True)
    depth = {
        name: level for level, base in reversed([*enumerate(kind.__mro__)]) for name in inspect.get_annotations(base)
    }
    fields = sorted(inspect.signature(kind).parameters.values(), key=lambda field: depth[field.name])
    signature = inspect.Signature([field.replace(annotation=hints[field.name]) for field in fields])

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_keywords(**given: Any) -> None:
            command(kind(**given))

        with_keywords.__signature__ = signature  # type: ignore[attr-defined]
        return with_keywords

    return decorate


def first_sentence(command: Callable[..., Any] | None) -> str:
    """The summary of a command in the list of all. Click cuts off one that it makes itself."""
    paragraph = " ".join((getattr(command, "__doc__", None) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]


def own_name(dataset: str) -> str:
    """The name under which a data set is recorded: paths are absolute. Raises InputError for one that is no text."""
    from suite.data.listing import canonical

    if printable(dataset) != dataset:
        raise InputError(f"--dataset {dataset!r} cannot be recorded: the name of a folder must be printable text.")
    return canonical(dataset)


def command_line() -> str:
    """The command line of this process, for the record. File names may not be valid text, so they are escaped."""
    return printable(" ".join(["mnist-suite", *sys.argv[1:]]))
