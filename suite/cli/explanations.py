"""What `explain` does and prints: maps and figures on stdout, PNG and .npy files, progress and failures on stderr."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from suite.cli import console
from suite.data.chosen import chosen_pictures
from suite.data.pictures import stored_picture
from suite.errors import InputError, printable
from suite.explaining import record
from suite.explaining.explain import Explained, Explainer
from suite.explaining.nearest import nearest_or_why_not
from suite.explaining.subject import Subject, exported, trained, worst_mistakes
from suite.export.card import CARD
from suite.hardware.device import pick
from suite.spec import NAME, Explanation, Method
from suite.store.files import dump_json
from suite.store.outputs import check_folder, write_file
from tui.draw import explanations as blocks

LONGEST = 60  # characters of a picture's name in the names of its files


@dataclass(frozen=True)
class Wanted:
    """The options of the command."""

    methods: tuple[Method, ...]
    target: str | None
    nearest: int
    share: float
    to: Path | None
    maps: str  # "none", "npy" or "json"
    as_json: bool
    quiet: bool


@dataclass(frozen=True)
class Given:
    """A picture to explain."""

    name: str
    picture: np.ndarray | str  # (C, stored, stored) uint8, or why it cannot be used
    label: int | None = None


def run(model: Path, named: Sequence[Path], wanted: Wanted, results: Path, device: str) -> int:
    """Explain the pictures, or the trial's worst mistakes. Returns the exit code. Raises InputError and WorkError."""
    if wanted.to is not None:
        check_folder(wanted.to)
    place = pick(device)
    subject = _subject(model, named, results)
    target = _class(wanted.target, subject)
    explainer = Explainer(subject, place, wanted.methods, wanted.share, k=wanted.nearest)
    count, pictures = _given(subject, named, wanted)
    usable, pictures = _from_first_usable(pictures)
    if wanted.nearest and usable:
        with console.step_progress("training images", wanted.quiet) as on_step:
            explainer.nearest, why_not = nearest_or_why_not(subject, place, on_step)
        explainer.notes |= {why_not: None} if why_not else {}
    done: list[Explained] = []
    with console.step_progress("pictures", wanted.quiet) as on_step:
        for position, one in enumerate(pictures):
            answer = _explained(explainer, one, target)
            if isinstance(answer, Explained):
                done.append(answer)
            _print(answer, one.name, wanted, subject, position)
            on_step(position + 1, count)
    if wanted.as_json:
        print("\n]" if count else "[]")
    if subject.directory is not None and done:
        record.write(subject, done, tuple(explainer.notes))
    if not wanted.quiet:
        _say_at_end(explainer, subject, wanted, len(done))
    return 0 if len(done) == count else 1 if done else 2


def _subject(model: Path, named: Sequence[Path], results: Path) -> Subject:
    if (model / CARD).is_file():
        if not named:
            raise InputError(f"Name at least one picture or folder: mnist-suite explain {model} PATH...")
        return exported(model)
    study = str(model).partition("/")[0]
    if re.fullmatch(NAME, study) and (results / study / "study.json").exists():
        return trained(results, str(model))
    raise InputError(
        f"{model} is neither a folder that `mnist-suite export` wrote, which holds {CARD}, nor a study or STUDY/TRIAL "
        f"in {results}; another results directory is named with --results DIR."
    )


def _class(name: str | None, subject: Subject) -> int | None:
    if name is None or name in subject.classes:
        return None if name is None else subject.classes.index(name)
    known = ", ".join(subject.classes[:20]) + (", ..." if subject.classes[20:] else "")
    raise InputError(f"--target {name!r} is no class of {subject.name}; its classes are {known}.")


def _given(subject: Subject, named: Sequence[Path], wanted: Wanted) -> tuple[int, Iterator[Given]]:
    """How many pictures there are, and each with the number by which its files are named."""
    if not named:
        mistakes = worst_mistakes(subject)
        if not mistakes:
            raise InputError(f"{subject.name} makes no mistake on validation; name pictures to explain.")
        return len(mistakes), (Given(one.name, one.picture, one.label) for one in mistakes)
    files, left_out = chosen_pictures(named)
    if left_out and not wanted.quiet:
        console.err.print(f"left out: {', '.join(left_out)}")
    if wanted.to is not None:
        folder = os.path.realpath(wanted.to)
        if any(os.path.realpath(path.parent) == folder for path in files):
            raise InputError(f"{wanted.to} holds pictures to explain; name another folder with --to DIR.")
    return len(files), (Given(str(path), _read(path, subject)) for path in files)


def _from_first_usable(pictures: Iterator[Given]) -> tuple[bool, Iterator[Given]]:
    """Whether there is a picture that can be used, for which neighbours are worth their time; and all pictures."""
    read: list[Given] = []
    for one in pictures:
        read.append(one)
        if not isinstance(one.picture, str):
            return True, chain(read, pictures)
    return False, iter(read)


def _read(path: Path, subject: Subject) -> np.ndarray | str:
    try:
        return stored_picture(path, subject.expects)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{path}: {error.strerror or error}"


def _explained(explainer: Explainer, one: Given, target: int | None) -> Explained | str:
    """The explanation, or why there is none."""
    if isinstance(one.picture, str):
        return one.picture
    try:
        return explainer.explain(one.picture, one.name, label=one.label, target=target)
    except InputError as error:
        return f"{one.name}: {error}"


def _print(answer: Explained | str, name: str, wanted: Wanted, subject: Subject, position: int) -> None:
    """One picture's part of the output, and its files."""
    if isinstance(answer, str):
        if wanted.as_json:
            _print_json({"image": name, "error": answer}, position)
        else:
            console.err.print(f"mnist-suite: {printable(' '.join(answer.split()))}", soft_wrap=True)
        return
    described = answer.described()
    files = _write(answer, described, wanted, subject, position)
    if wanted.as_json:
        _print_json(_as_json(answer, described, subject.classes, wanted, files), position)
    else:
        _print_text(described, subject.classes)


def _print_json(item: dict[str, Any], position: int) -> None:
    print("[\n  " if position == 0 else ",\n  ", dump_json(item).replace("\n", "\n  "), sep="", end="")


def _write(
    answer: Explained, described: Explanation, wanted: Wanted, subject: Subject, position: int
) -> dict[str, str]:
    """The files of a picture, by method; under "picture" the PNG."""
    if wanted.to is None:
        return {}
    from suite.reporting.plots_explanations import explained
    from suite.reporting.plots_style import as_png

    stem = f"{position + 1:04d}-{Path(answer.image).stem.replace(' ', '-')[:LONGEST]}"
    files = {"picture": str(wanted.to / f"{stem}.png")}
    write_file(Path(files["picture"]), as_png(explained(described, subject.classes)))
    if wanted.maps == "npy":
        import io

        for method, values in answer.maps.items():
            files[method] = str(wanted.to / f"{stem}-{method}.npy")
            content = io.BytesIO()
            np.save(content, values)
            write_file(Path(files[method]), content.getvalue())
    return files


def _as_json(
    answer: Explained, described: Explanation, classes: Sequence[str], wanted: Wanted, files: dict[str, str]
) -> dict[str, Any]:
    facts = ("deletion", "random", "seconds", "steps", "remainder", "layer", "cells", "window", "stride")
    maps = []
    for one in described.maps:
        entry = {"method": one.method, **{key: value for key in facts if (value := getattr(one, key)) is not None}}
        if one.method in files:
            entry["file"] = files[one.method]
        if wanted.maps == "json":
            entry["values"] = answer.maps[one.method].astype(float).tolist()
        maps.append(entry)
    return {
        "image": answer.image,
        "label": classes[answer.predicted],
        "probability": described.probability,
        "true": None if answer.label is None else classes[answer.label],
        "target": classes[answer.target],
        "target_probability": described.target_probability,
        "maps": maps,
        "nearest": [
            {"index": one.index, "label": classes[one.label], "distance": round(one.distance, 6)}
            for one in described.nearest
        ],
        "picture": files.get("picture"),
    }


def _print_text(one: Explanation, classes: Sequence[str]) -> None:
    """The answer, the maps in block characters, and the figures."""
    out = console.out
    out.print(blocks.answer(one, classes), soft_wrap=True)
    width = min(out.width, 160)
    coloured = out.is_terminal and not out.no_color and out.color_system not in (None, "standard")
    for line in blocks.pictures(one, width) if coloured else blocks.plain(one, width):
        out.print(line, soft_wrap=True)
    for attribution in one.maps:
        words = [f"{attribution.method}:"]
        if attribution.steps is not None:
            words.append(f"{attribution.steps} steps, remainder {100 * (attribution.remainder or 0):.2g}%;")
        if attribution.layer is not None and attribution.cells is not None:
            words.append(f"layer {attribution.layer}, {attribution.cells[0]} x {attribution.cells[1]};")
        if attribution.window is not None:
            words.append(f"window {attribution.window} px, stride {attribution.stride};")
        words.append(f"deletion {attribution.deletion:.3f}, in random order {attribution.random:.3f}")
        out.print("  " + " ".join(words), soft_wrap=True)
    if one.nearest:
        found = "  ".join(f"{classes[n.label]} ({n.distance:.3f}, #{n.index})" for n in one.nearest)
        out.print(f"  nearest training images: {found}", soft_wrap=True)


def _say_at_end(explainer: Explainer, subject: Subject, wanted: Wanted, done: int) -> None:
    for note in explainer.notes:
        console.err.print(note, soft_wrap=True)
    if wanted.to is not None and done:
        console.err.print(f"{done} pictures are in {wanted.to}", soft_wrap=True)
    if subject.directory is not None and done:
        console.err.print(
            f"kept with the trial {subject.name}, for `mnist-suite tui` and `mnist-suite report`", soft_wrap=True
        )
