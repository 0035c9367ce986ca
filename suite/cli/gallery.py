"""The command that publishes results: gallery."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from suite.cli.options import Json, Quiet, Results, path_option, takes
from suite.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GalleryOptions:
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Studies with a final evaluation; without any, the pages there are made anew."),
    ] = None
    to: Annotated[Path, path_option("--to", help="Folder of the pages.")] = Path("results")
    quote: Annotated[
        list[Path] | None,
        path_option("--quote", help="A Markdown file whose quotes of figures are made anew. May be repeated."),
    ] = None
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file would change.")] = False
    results: Results = None
    as_json: Json = False
    quiet: Quiet = False


@takes(GalleryOptions)
def gallery(options: GalleryOptions) -> None:
    """Publish studies: a page, a picture and a CSV of figures each, and quotes of these figures elsewhere.

    A page holds the question, the answer with its interval, accuracies on test, costs, comparisons, commands and
    versions. It is made from its CSV alone, so anyone can make it again. A Markdown link quotes a figure where its
    title names one, as in [](results/mnist.md "mnist: cnn-head, test"); its text and address are filled in.

    \b
    Examples: mnist-suite gallery mnist fashion --to results
              mnist-suite gallery mnist --to results --quote README.md
              mnist-suite gallery --to results --quote README.md --check
    """
    from suite.cli import console
    from suite.store.files import dump_json, results_dir
    from suite.store.study import open_study

    names, documents = options.studies or [], options.quote or []
    if options.check and names:
        raise InputError("--check compares pages with their CSVs; leave the studies out.")
    with console.step_progress("pictures", options.quiet) as on_step:
        from suite.gallery import publish  # within the progress, since it takes a second to load

        if options.check:
            changed = publish.differing(options.to, documents)
        else:
            root = results_dir(options.results)
            tables = publish.publish(root, [open_study(root, name) for name in names], options.to) if names else []
            changed = tables + publish.write(options.to, documents, on_step=on_step)
    listed = [str(path) for path in changed]
    if options.as_json:
        print(dump_json({"differing" if options.check else "written": listed}))
    elif options.check and listed:
        redo = " ".join(["mnist-suite gallery --to", str(options.to), *(f"--quote {path}" for path in documents)])
        console.err.print(
            f"These files do not follow from the figures in {options.to}: {', '.join(listed)}. Make them anew: {redo}",
            soft_wrap=True,
        )
    elif not options.check:
        console.out.print(f"Written: {', '.join(listed)}" if listed else "Nothing has changed.", soft_wrap=True)
    if options.check and listed:
        raise typer.Exit(1)
