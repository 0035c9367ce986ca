"""Finds the pictures below a folder that holds a folder of pictures for each class.

The classes are folders of the root or of its parts: root/CLASS, or root/train/CLASS, root/val/CLASS, root/test/CLASS.
Folders inside a class belong to it. Symbolic links are followed.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path
from typing import NamedTuple

from suite.data.findings import (
    PART_NAMES,
    TEST,
    TRAIN,
    UNLABELLED,
    VALIDATION,
    Found,
    LeftOut,
    Row,
    part_of,
    why_no_picture,
)
from suite.errors import InputError

# Made by operating systems, NAS and programs, not by the person. In lower case; "._*" is AppleDouble, from macOS.
SYSTEM_FOLDERS = {
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", ".@__thumb", ".ipynb_checkpoints",
    "__macosx", "__pycache__", "$recycle.bin", "recycler", "system volume information", "lost+found",
}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r"}


# What a link leads to that is not there, beside ENOENT, which `DirEntry` does not raise.
BROKEN = {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}


class Folder(NamedTuple):
    name: str
    path: str  # as found
    real: str  # without symbolic links
    link: bool


class Content(NamedTuple):
    """What a folder holds: nothing that is hidden, of the system, or a broken link."""

    folders: dict[str, Folder]  # by name, sorted
    files: list[tuple[str, str]]  # path as found, path without symbolic links


def find_in_folder(root: Path) -> Found:
    """The pictures below an absolute path without links. Raises InputError."""
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; folder:PATH takes one that holds a folder of images a class.")
    found = Found(root=root, source=root)
    top = _scan(Folder(root.name, str(root), str(root), False), found.left_out)
    parts = _parts(root, top)
    if not parts:
        _check_not_wrapped(root, top)
        _take_classes(TRAIN, top, found)
        return found
    for name, part in parts.items():
        content = _inner(top.folders[name], part, found.left_out)
        if part != UNLABELLED and content.folders:
            _take_classes(part, content, found)
        else:
            _take_unlabelled(name, content, found.left_out)
    _take_loose(top, found.left_out)
    for name in top.folders:
        if name not in parts:
            found.left_out.add("folder{s} beside the parts", name=name)
    found.notes += _drawn(parts, found)
    return found


def _drawn(parts: dict[str, int], found: Found) -> list[str]:
    """What to tell of parts that the person may have meant to give."""
    if set(parts.values()) == {TRAIN}:
        return [f"{next(iter(parts))} is the only part: validation and test are drawn from it"]
    given = {row.part for row in found.rows}
    return [
        f"{name} holds no pictures in class folders: {PART_NAMES[part]} is drawn from the training part"
        for name, part in parts.items()
        if part in (VALIDATION, TEST) and part not in given
    ]


def _parts(root: Path, top: Content) -> dict[str, int]:
    """Name -> part of the folders that are parts; empty if the folders of the root are the classes.

    Folders named like parts may be classes, for example a "train" beside a "bus". They are parts if the training
    folder holds folders, and another part stands beside it or nothing else does.
    """
    named = _named_like_parts(list(top.folders))
    others = len(named) < len(top.folders)
    alike = f"{root} holds {' and '.join(named)}, which look like parts and not like classes"
    trains = [name for name, part in named.items() if part == TRAIN]
    if named and not trains and not others:
        raise InputError(
            f"{alike}, but none for training. Add one named train, or give the folder that holds one folder a class."
        )
    if not any(_inner(top.folders[name], TRAIN, LeftOut()).folders for name in trains):
        if trains and not others:
            raise InputError(
                f"{alike}, but {trains[0]} holds no class folders. Put the images of each class into a folder of its "
                f"own: {trains[0]}/CLASS/IMAGE."
            )
        return {}
    if others and set(named.values()) == {TRAIN}:
        return {}
    for part in (TRAIN, VALIDATION, TEST):
        if len(twins := [name for name in named if named[name] == part]) > 1:
            raise InputError(
                f"{' and '.join(twins)} in {root} all look like the {PART_NAMES[part]} part. Put them into one folder, "
                "or rename those that are another part."
            )
    return named


def _check_not_wrapped(root: Path, top: Content) -> None:
    """Raises InputError if the one folder of the root holds the folders that are wanted, as archives often have it."""
    if len(top.folders) == 1:
        inner = next(iter(top.folders.values()))
        if len(_scan(inner, LeftOut()).folders) > 1:
            raise InputError(
                f"{root} holds one folder, {inner.name}; it takes at least two folders, one a class. "
                f"Did you mean folder:{inner.path}?"
            )


def _named_like_parts(names: list[str]) -> dict[str, int]:
    """Name -> part. A name with a prefix counts if another part has the same: "seg_train" beside "seg_test"."""
    found = {name: part for name in names if (part := part_of(name))}
    by_prefix: dict[str, set[int]] = {}
    for part, prefix in found.values():
        by_prefix.setdefault(prefix, set()).add(part)
    return {name: part for name, (part, prefix) in found.items() if not prefix or len(by_prefix[prefix]) > 1}


def _inner(folder: Folder, part: int, left_out: LeftOut) -> Content:
    """The content of a part. Archives often hold it one level deeper, as in seg_train/seg_train/CLASS."""
    content = _scan(folder, left_out)
    if len(content.folders) == 1:
        inner = next(iter(content.folders.values()))
        if (named := part_of(inner.name)) and named[0] == part:
            _take_loose(content, left_out)
            return _scan(inner, left_out)
    return content


def _take_classes(part: int, content: Content, found: Found) -> None:
    """Adds the pictures of a part, whose folders are classes."""
    _take_loose(content, found.left_out)
    for folder in content.folders.values():
        label = _label(folder)
        if part == TRAIN:
            found.classes.add(label)
        found.rows += [Row(part, label, path, real) for path, real in _walk(folder, found.left_out)]


def _take_loose(content: Content, left_out: LeftOut) -> None:
    """Counts the files that lie beside folders and belong to none."""
    for path, _ in content.files:
        left_out.add(why_no_picture(path) or "picture{s} outside the class folders")


def _take_unlabelled(name: str, content: Content, left_out: LeftOut) -> None:
    """Counts the pictures of a part without classes."""
    pictures = sum(len(_walk(folder, left_out)) for folder in content.folders.values())
    for path, _ in content.files:
        if why := why_no_picture(path):
            left_out.add(why)
        else:
            pictures += 1
    if pictures:
        left_out.add("picture{s} without a class", name=name, number=pictures)


def _label(folder: Folder) -> str:
    """The class that a folder stands for. Macs write accents otherwise than other systems: both are one class."""
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise InputError(f"The name of the class folder {folder.path!r} is not UTF-8. Rename it.") from None
    return unicodedata.normalize("NFC", folder.name)


def _walk(top: Folder, left_out: LeftOut) -> list[tuple[str, str]]:
    """The pictures below a folder, each with its path as found and without links.

    Every folder is visited once. Links are followed last, so that a folder inside is found by its own path.
    """
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    stack, links = [top], []
    while stack or links:
        folder = stack.pop() if stack else links.pop(0)
        if folder.real in seen:
            left_out.add("folder{s} listed twice")
            continue
        seen.add(folder.real)
        content = _scan(folder, left_out)
        for inner in content.folders.values():
            (links if inner.link else stack).append(inner)
        for path, real in content.files:
            if why := why_no_picture(path):
                left_out.add(why)
            else:
                found.append((path, real))
    return found


def pictures_below(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """All pictures below a folder, in whatever folders, and what was left out, in words. Raises InputError."""
    left_out = LeftOut()
    found = _walk(Folder(folder.name, str(folder), os.path.realpath(folder), False), left_out)
    return [Path(path) for path, _ in sorted(found, key=lambda one: one[0].split("/"))], left_out.in_words()


def _scan(folder: Folder, left_out: LeftOut) -> Content:
    """What a folder holds, without what is passed over, which is counted. Raises InputError if it cannot be read."""
    try:
        with os.scandir(folder.path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        content = Content({}, [])
        for entry in listed:
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder.real, entry.name)
            kind, name = _passed_over(entry, real, folder)
            if kind:
                left_out.add(kind, name=name)
            elif entry.is_dir():
                content.folders[entry.name] = Folder(entry.name, entry.path, real, entry.is_symlink())
            else:
                content.files.append((entry.path, real))
    except OSError as error:
        raise InputError(f"{error.filename or folder.path} cannot be read: {error.strerror}.") from None
    return content


def _passed_over(entry: os.DirEntry[str], real: str, folder: Folder) -> tuple[str, str]:
    """The kind of an entry that is passed over, for `LeftOut`, and the name to tell; empty for what is taken."""
    name = entry.name
    try:
        is_folder = entry.is_dir()
        is_file = entry.is_file()
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        is_folder = is_file = False
    if is_folder:
        if name.casefold() in SYSTEM_FOLDERS:
            return "system folder{s}", name
        if name.startswith("."):
            return "hidden folder{s}", ""
        loop = f"{folder.real}/".startswith(f"{real.rstrip('/')}/")
        return ("link{s} to a folder above" if loop else ""), ""
    if name.startswith("._"):
        return "system file{s}", "._*"
    if name.casefold() in SYSTEM_FILES:
        return "system file{s}", name
    if name.startswith("."):
        return "hidden file{s}", ""
    if is_file:
        return "", ""
    return ("broken link{s}" if entry.is_symlink() else "special file{s}"), ""
