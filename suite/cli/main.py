"""The command line program: its commands, and how errors become messages and exit codes.

Commands import what they need when they run, so that `--help` stays fast.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import importlib.util
import io
import json
import os
import signal
import sys
from typing import Annotated, NoReturn, TextIO

import typer

from suite import interpreter
from suite.cli import (
    completion,
    compress,
    data,
    evaluate,
    explain,
    gallery,
    hub,
    keep,
    machine,
    models,
    serve,
    sweep,
    train,
    view,
)
from suite.cli.options import first_sentence
from suite.cli.signals import cleaning_up
from suite.errors import InputError, WorkError, printable
from suite.hardware.openmp import bound_spinning


def _print_version(asked: bool) -> None:
    """Print which suite this is and where it lies, if asked."""
    if asked:
        from suite.store.provenance import version

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"mnist-suite {version()} from {interpreter.ROOT} (Python {python})")
        raise typer.Exit


app = typer.Typer(
    name="mnist-suite",
    help="Pretrain, fine-tune, search and compare small vision models.",
    epilog="Start with: mnist-suite sweep --trials 50   then: mnist-suite leaderboard",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data", short_help=data.app.info.help)

for command in (  # in the order of --help
    train.pretrain,
    train.finetune,
    sweep.sweep,
    compress.compress,
    sweep.stop,
    view.status,
    view.leaderboard,
    view.report,
    gallery.gallery,
    view.convert,
    view.tui,
    keep.note,
    keep.trash,
    evaluate.evaluate,
    evaluate.rerun,
    models.export,
    models.predict,
    explain.explain,
    serve.serve,
    hub.push,
    machine.doctor,
    machine.bench,
):
    app.command()(command)

for group in (app, data.app):
    for registered in group.registered_commands:
        registered.short_help = first_sentence(registered.callback)


BAD_PATH = {  # what is wrong with a path that a user has named
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENOENT, errno.EACCES, errno.EPERM,
    errno.EINVAL,
}  # fmt: skip


def main() -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0 success; 1 the work failed; 2 invalid input; 130 interrupted; 143 stopped by another signal or by a
    stop request. An error is one paragraph on stderr, never a traceback.
    """
    bound_spinning()
    _open_missing_streams()
    if importlib.util.find_spec("fcntl") is None:
        _fail(
            "This program runs on Linux and macOS; on Windows, run it in WSL.",
            1,
        )
    codecs.register_error("json_escapes", _json_escapes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may not be valid text
            stream.reconfigure(errors="json_escapes")
    code, message = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        code, message = code or 1, message or f"The output could not be written: {error.strerror}."
    _fail(message, code)


def _run() -> tuple[int, str]:
    """Run the command that the arguments name; returns the exit code, and the message of the error if there is one."""
    silent = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # as set while this module was imported
    try:
        if silent:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command = typer.main.get_command(app)
        if os.environ.get("_MNIST_SUITE_COMPLETE"):
            completion.answer(command)
        with cleaning_up():
            command(prog_name="mnist-suite")
    except SystemExit as end:  # Typer and rich end the process where the reader of our output has closed the pipe
        return 0 if isinstance(end.__context__, BrokenPipeError) else int(end.code or 0), ""
    except InputError as error:
        return 2, str(error)
    except WorkError as error:
        return 1, str(error)
    except KeyboardInterrupt:
        return 130, "Interrupted."
    except OSError as error:
        return _system_error(error)
    except RecursionError:
        return 2, "A value is nested too deeply."
    except MemoryError as error:
        return 1, f"Out of memory{f' ({error})' if str(error) else ''}. Nothing already written was lost."
    except ImportError as error:
        return 1, _import_advice(error)
    finally:
        if silent:  # nothing is left that could be stopped cleanly
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 0, ""


def _system_error(error: OSError) -> tuple[int, str]:
    """The exit code and the message for an error of the operating system."""
    unseen = getattr(error.__context__, "exit_code", None)  # of a usage error that stderr did not take
    if unseen is not None:
        return unseen, ""
    if isinstance(error, BrokenPipeError):  # the reader of our output has closed the pipe, which is no error
        return 0, ""
    where = f" ({error.filename})" if error.filename else ""
    bad_path = error.errno in BAD_PATH
    return 2 if bad_path else 1, f"{error.strerror or error}{where}. Nothing already written was lost."


def _import_advice(error: ImportError) -> str:
    """What an import that failed means for the user."""
    text = str(error).rstrip(".")
    if any(words in text.lower() for words in ("cannot allocate memory", "failed to map segment", "out of memory")):
        return f"{text}: there is too little memory to load it."
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: the installation is incomplete. Install mnist-suite again, with its dependencies."
    return (
        f"{text}: this is not the library that mnist-suite needs. Its installation is damaged or of another version, "
        "or PYTHONPATH puts another file of that name before it."
    )


def _fail(message: str, code: int) -> NoReturn:
    """Print a message, if there is one, as one paragraph on stderr and exit."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        if message:
            print(f"mnist-suite: {printable(' '.join(message.split()))}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        _discard_unwritten(stream)
    sys.exit(code)


def _discard_unwritten(stream: TextIO) -> None:
    """Drop what a stream could not write; Python would try again at its end, and exit with 120."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "w") as null, contextlib.suppress(OSError, ValueError):  # it may have no descriptor
            os.dup2(null.fileno(), stream.fileno())


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    """Error handler of codecs: characters that a stream cannot encode are written as JSON escapes, such as \\u00e9."""
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _open_missing_streams() -> None:
    """Open stdin, stdout or stderr on the null device if the process was started without them, as by `2>&-`.

    Otherwise the next file to be opened would get the stream's descriptor, and messages would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free descriptor: `number`
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


if __name__ == "__main__":
    main()
