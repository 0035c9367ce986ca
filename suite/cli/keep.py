"""Commands on what surrounds results: note, trash."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from suite.cli.options import Results
from suite.errors import InputError

Reference = Annotated[str, typer.Argument(help="STUDY, or STUDY/TRIAL with the id or number of a trial.")]


def note(
    reference: Reference,
    text: Annotated[str | None, typer.Argument(help="The new note; '' removes it. By default it is shown.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Add a tag of one word; may be repeated.")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="Remove a tag; may be repeated.")] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--no-archive", help="Leave it out of the dashboard's board, or not.")
    ] = None,
    results: Results = None,
) -> None:
    """Write or show the note and the tags of a study or a trial, for all who see these results.

    \b
    Examples: mnist-suite note mnist/12 "diverges without warm-up" --tag unstable
              mnist-suite note mnist --archive
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.notes import NO_NOTE, STUDY, read_notes, write_note
    from suite.store.outputs import writing
    from suite.store.study import find_trial, open_study, split_reference

    name, wanted = split_reference(reference)
    study = open_study(results_dir(results), name)
    trial = find_trial(study, wanted).id if wanted else STUDY
    if text is not None or tag or untag or archive is not None:
        with writing(study.path, "--results"):
            write_note(study, trial, text=text, tag=tuple(tag or ()), untag=tuple(untag or ()), archived=archive)
    now = read_notes(study).get(trial, NO_NOTE)
    words = [now.text or "no note", *(f"#{one}" for one in now.tags), *["archived"] * now.archived]
    console.out.print(f"{study.name}{f'/{trial}' if trial else ''}: {'  '.join(words)}")


def trash(reference: Reference, results: Results = None) -> None:
    """Move a study or a trial to the folder .trash of the results, out of which it can be moved back.

    \b
    Example: mnist-suite trash mnist/12
    """
    from suite.cli import console
    from suite.store.files import results_dir
    from suite.store.outputs import writing
    from suite.store.study import find_trial, open_study, split_reference
    from suite.store.trash import discard

    name, wanted = split_reference(reference)
    if not name:
        raise InputError("Name a study, or a trial as STUDY/TRIAL.")
    root = results_dir(results)
    study = open_study(root, name)
    state = find_trial(study, wanted) if wanted else None
    if state is not None and wanted not in (state.id, str(state.trial.number)):
        raise InputError(f"'{wanted}' is the beginning of an id; name the whole one, {state.id}, to delete it.")
    trial = state.id if state is not None else None
    with writing(study.path, "--results"):
        found = discard(root, study.name, trial)
    back = shlex.join(["mv", str(found.kept), str(found.place)])
    console.out.print(f"Moved to {found.kept}. To take it back: {back}")
