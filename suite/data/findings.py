"""What a search for pictures finds: rows with a part and a class each, and a count of what it passes over.

`listing_folder` and `listing_csv` find rows; `listing` checks them and makes a `Listing` of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from suite.data.pictures import FORMATS

TRAIN, VALIDATION, TEST = range(3)

UNLABELLED = 3  # pictures to predict, without a class, as in Kaggle's competitions

MOST_KINDS = 12  # of what was left out that are told apart in words

PART_NAMES = ("training", "validation", "test", "unlabelled")  # of the parts, for messages

# Words for a part in the names of folders and in the part columns of CSV files.
PART_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "trn": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "validate": VALIDATION,
    "dev": VALIDATION,
    "development": VALIDATION,
    "publictest": VALIDATION,  # of FER2013
    "test": TEST,
    "tests": TEST,
    "testing": TEST,
    "tst": TEST,
    "eval": TEST,  # as in https://huggingface.co/docs/hub/datasets-file-names-and-splits
    "evaluation": TEST,
    "holdout": TEST,
    "privatetest": TEST,  # of FER2013
    "pred": UNLABELLED,
    "predict": UNLABELLED,
    "prediction": UNLABELLED,
    "unlabeled": UNLABELLED,
    "unlabelled": UNLABELLED,
}

# A prefix ("seg_"), the word, what it is a part of ("_set", "images"), and a number ("2017").
_PART = re.compile(
    rf"(?:(?P<prefix>.*[^\W_])[\W_]+)?(?P<word>{'|'.join(PART_WORDS)})[\W_]*"
    r"(?:(?:data)?sets?|data|folder|split|part|im(?:age|g)s?|photos?|pictures?|pics?)?[\W_]*\d*"
)


def part_of(name: str) -> tuple[int, str] | None:
    """The part that a name stands for, and what is written before the word; None if it stands for none.

    Case, separators and endings do not matter: "Train", "training_set", "test-images" and "val2017" have an empty
    prefix, "seg_train" has the prefix "seg".
    """
    found = _PART.fullmatch(name.strip().casefold())
    return (PART_WORDS[found["word"]], found["prefix"] or "") if found else None


class Row(NamedTuple):
    """One picture."""

    part: int
    label: str
    path: str  # absolute, as found
    real: str  # the path without symbolic links: what tells two pictures apart


@dataclass
class LeftOut:
    """Counts what is passed over, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, set[str]] = field(default_factory=dict)

    def add(self, kind: str, *, name: str = "", number: int = 1) -> None:
        """Counts one more of a kind, with "{s}" where its plural has an s. Names stand beside the number of a kind."""
        self.counts[kind] += number
        if name:
            self.names.setdefault(kind, set()).add(name)

    def in_words(self) -> tuple[str, ...]:
        """For example ("40 .heic (no decoder)", "3 hidden folders", "1 system folder (@eaDir)"), most first."""
        kinds = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        rest = kinds[MOST_KINDS:]
        other = [f"{sum(self.counts[kind] for kind in rest):,} of {len(rest):,} other kinds"] if rest else []
        return (*(self._phrase(kind) for kind in kinds[:MOST_KINDS]), *other)

    def _phrase(self, kind: str) -> str:
        number = self.counts[kind]
        names = f" ({some(sorted(self.names[kind]))})" if kind in self.names else ""
        return f"{number:,} {kind.replace('{s}', '' if number == 1 else 's')}{names}"


@dataclass
class Found:
    """The rows of a data set before they are checked."""

    root: Path  # paths in messages are relative to it
    source: Path  # the folder or CSV file, for messages
    rows: list[Row] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)  # of the training part, those without a picture too
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: list[str] = field(default_factory=list)


def some(names: Iterable[str], most: int = 10) -> str:
    """The names separated by commas; of many, the first and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- which files are pictures ---------------------------------------------------------------------------------------

# Suffixes of pictures that neither this program nor Pillow's registry knows.
UNDECODED = {
    ".heic", ".heif", ".hif", ".jxl", ".svg", ".exr", ".dcm",
    ".nef", ".cr2", ".cr3", ".arw", ".dng", ".orf", ".raf", ".rw2",
}  # fmt: skip

# How the files of FORMATS begin. It asks for more than Pillow's decoders do, since the texts "BMW" and "Python" are no
# pictures.
_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|P[1-6fF]\s+[#\d]",
    re.DOTALL,
)

_MAGIC_BYTES = 18  # the most that _MAGIC looks at


@cache
def _suffixes() -> tuple[frozenset[str], frozenset[str]]:
    """The suffixes of FORMATS, and those of pictures that are not decoded."""
    from PIL import Image

    known = Image.registered_extensions()
    taken = frozenset(suffix for suffix, kind in known.items() if kind in FORMATS)
    return taken, frozenset(known) - taken | UNDECODED


def why_no_picture(path: str) -> str | None:
    """None for a picture, else the kind of file it is, for `LeftOut`.

    The suffix decides. Of a file without one the first bytes do: it is the only one that is opened.
    """
    name = path.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    suffix = (dot + ending).lower() if stem and ending else ""
    taken, undecoded = _suffixes()
    if suffix in taken:
        return None
    if suffix:
        return f"{suffix} (no decoder)" if suffix in undecoded else suffix
    try:
        with open(path, "rb") as file:
            return None if _MAGIC.match(file.read(_MAGIC_BYTES)) else "file{s} without a suffix"
    except OSError:
        return None  # decoding names the files that cannot be read
