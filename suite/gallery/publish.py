"""Writing pages: from studies to CSVs, and from CSVs to pages, pictures, the list of pages and quotes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from suite.errors import InputError
from suite.gallery import figures
from suite.gallery.answer import answer
from suite.gallery.collect import collect
from suite.gallery.figures import Figures
from suite.gallery.page import page
from suite.gallery.picture import picture
from suite.gallery.quotes import requoted
from suite.reporting.markdown import escape
from suite.reporting.plots_style import as_png
from suite.store.files import read_bytes
from suite.store.outputs import check_folder, write_file
from suite.store.study import StudyDir

OnStep = Callable[[int, int], None]  # called with the steps done so far and the number of all

INTRODUCTION = """\
# Results

Each page answers one question with a study: accuracies on test images that were read after the choice was made, over
fresh seeds, with 95 % intervals, comparisons and costs. Every figure is made from a study by `mnist-suite gallery`, and
quoted from the CSV beside the page; `make gallery-check` compares them.
"""


def publish(results: Path, studies: Sequence[StudyDir], to: Path) -> list[Path]:
    """Write the CSVs of studies; returns them.

    Raises InputError, before anything is written, where a study has no final evaluation.
    """
    check_folder(to)
    found = [collect(results, study) for study in studies]
    texts = {to / f"{one.name}.csv": figures.as_csv(one) for one in found}
    for path, text in texts.items():
        write_file(path, text)
    return list(texts)


def published(folder: Path) -> dict[str, Figures]:
    """The pages of a folder by name, in the order of their names. Raises InputError for a damaged CSV, or none."""
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise InputError(f"{folder} has no published figures. `mnist-suite gallery STUDY --to {folder}` writes some.")
    return {path.stem: figures.read(path) for path in paths}


def write(folder: Path, documents: Sequence[Path] = (), *, on_step: OnStep = lambda *_: None) -> list[Path]:
    """Make everything anew that follows from the CSVs in `folder`; returns the files that this changed.

    `documents` are Markdown files that quote figures. Raises InputError where one of their quotes names no figure, and
    for damaged CSVs.
    """
    pages = published(folder)
    texts = _texts(folder, documents, pages)
    pictures = {name: found for name, found in pages.items() if not _is_drawn(folder, name)}
    changed = [path for path, text in texts.items() if _differs(path, text)]
    for path in changed:
        write_file(path, texts[path])
    for done, (name, found) in enumerate(pictures.items()):
        on_step(done, len(pictures))
        place = _picture_of(folder, name)
        write_file(place, as_png(picture(found), source=_digest(folder, name)))
        changed.append(place)
    if pictures:
        on_step(len(pictures), len(pictures))
    return changed


def differing(folder: Path, documents: Sequence[Path] = ()) -> list[Path]:
    """The files that `write` would change. Raises InputError as it does."""
    pages = published(folder)
    texts = _texts(folder, documents, pages)
    drawn = [_picture_of(folder, name) for name in pages if not _is_drawn(folder, name)]
    return [*(path for path, text in texts.items() if _differs(path, text)), *drawn]


def _texts(folder: Path, documents: Sequence[Path], pages: Mapping[str, Figures]) -> dict[Path, str]:
    texts = {folder / f"{name}.md": page(found) for name, found in pages.items()}
    others = sorted({path.name for path in folder.glob("*.md")} - {path.name for path in texts} - {"README.md"})
    texts[folder / "README.md"] = _list(pages, others)
    for document in documents:
        try:
            written = read_bytes(document).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{document} cannot be read: {error}.") from None
        texts[document] = requoted(written, document, folder, pages)
    return texts


def _list(pages: Mapping[str, Figures], others: Sequence[str]) -> str:
    """The list of pages; `others` are Markdown files beside them."""
    entries = [
        f"## [{escape(found.text('question'))}]({name}.md)\n\n{answer(found)}\n" for name, found in pages.items()
    ]
    links = ", ".join(f"[{escape(name)}]({name})" for name in others)
    return "\n".join([INTRODUCTION, *entries, *([f"Pages of another kind: {links}.\n"] if others else [])])


def _differs(path: Path, text: str) -> bool:
    try:
        return read_bytes(path) != text.encode()
    except OSError:
        return True


def _picture_of(folder: Path, name: str) -> Path:
    return folder / "pictures" / f"{name}.png"


def _is_drawn(folder: Path, name: str) -> bool:
    """Whether the picture of a page was drawn from its CSV as it is now."""
    try:
        with Image.open(_picture_of(folder, name)) as image:
            return image.info.get("Source") == _digest(folder, name)
    except OSError:
        return False


def _digest(folder: Path, name: str) -> str:
    return f"{name}.csv, SHA-256 {hashlib.sha256(read_bytes(folder / f'{name}.csv')).hexdigest()}"
