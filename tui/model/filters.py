"""The filter language: `acc>.99 flops<10M arm:head state:running|stale -is:marked "word"`.

Terms stand beside each other and must all hold. A term is one of

    field<value  field>value  field<=value  field>=value  field=value  field!=value     a comparison
    field:text   field:one|other                                                        text contains, any of
    tag:name     note:text                                                              has that tag, that note
    is:pareto    is:marked    is:pinned    is:live    is:best    is:archived            a property
    word         "several words"                                                        anything contains it

and a leading '-' negates it. Fields are the leaderboard's columns, short names for them (`acc`, `mem`,
`data`, ...) and whatever the search tuned (`lr`, `batch_size`, ...). Numbers take `%`, `k M G T`, `ms s min h`,
`KiB MiB GiB`. An unknown value matches no comparison, so that its negation holds. What is archived is left out,
unless a term is about it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suite.ranking.leaderboard import COLUMNS, Row

ALIASES = {
    "acc": "accuracy",
    "mem": "memory",
    "time": "seconds",
    "parameters": "params",
    "joules": "energy",
    "id": "trial",
    "n": "number",
    "ips": "speed",
    "data": "dataset",
    "tag": "tags",
}
TEXT_FIELDS = frozenset(
    {"trial", "dataset", "energy_source", *(key for key, column in COLUMNS.items() if column.textual)}
)
PROPERTIES = ("pareto", "marked", "pinned", "live", "best", "archived")
LIVE = frozenset({"running", "waiting", "paused", "stale"})
UNITS = {
    **{"": 1.0, "%": 0.01, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    **{"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    **{"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    **{"J": 1.0, "kJ": 1e3, "MJ": 1e6},
}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
TOKEN = re.compile(r'\s*(?P<token>(?:"[^"]*"?|[^\s"])+)')
TERM = re.compile(r"(?P<field>[A-Za-z_][A-Za-z0-9_.]*)(?P<sign><=|>=|!=|<|>|=|:)(?P<value>.*)", re.DOTALL)
NUMBER = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>[A-Za-z%]*)")


class FilterError(ValueError):
    """The filter cannot be read. The message says what is wrong, with an example that works."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a filter."""

    field: str  # "": search for a word in all text fields
    sign: str  # one of COMPARISONS, or ":"
    value: float | str
    negated: bool = False

    def __str__(self) -> str:
        value = _quoted(self.value, bare=not self.field) if isinstance(self.value, str) else repr(self.value)
        return f"{'-' if self.negated else ''}{self.field}{self.sign if self.field else ''}{value}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a filter is applied to: a row, its data set, and the names of its properties (of `PROPERTIES`)."""

    row: Row
    dataset: str = ""
    properties: Container[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Filter:
    """Terms that must all hold. `str` gives text that `parse` reads back."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return " ".join(str(term) for term in self.terms)

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def about_pareto(self) -> bool:
        """Whether a term needs the Pareto front."""
        return self._asks_for("pareto")

    @property
    def about_archived(self) -> bool:
        """Whether a term is about what is archived, which is left out otherwise."""
        return self._asks_for("archived")

    def _asks_for(self, name: str) -> bool:
        return any(term.field == "is" and term.value == name for term in self.terms)

    def matches(self, subject: Subject) -> bool:
        return all(_holds(term, subject) != term.negated for term in self.terms)


def parse(text: str) -> Filter:
    """Parse a filter. Raises FilterError."""
    return Filter(tuple(_term(token["token"]) for token in TOKEN.finditer(text.strip())))


def number(text: str) -> float:
    """Parse a number with an optional unit: '10M', '99%', '5min', '.01'. Raises FilterError."""
    match = NUMBER.fullmatch(text.strip())
    if match is None:
        raise FilterError(f"'{text}' is not a number; write 0.99, 99%, 1e7, 10M, 5min or 1GiB")
    if match["unit"] not in UNITS:
        raise FilterError(f"'{match['unit']}' is not a unit; take one of: {' '.join(unit for unit in UNITS if unit)}")
    value = float(match["number"])
    return value / 100 if match["unit"] == "%" else value * UNITS[match["unit"]]


def lookup(row: Row, field: str) -> Any:
    """The value of a column, or of a searched hyperparameter by its path or the last part of it; None if unknown."""
    if field in COLUMNS or field in ("trial", "energy_source"):
        return getattr(row, field)
    tuned = row.tuned
    if field in tuned:
        return tuned[field]
    return next((value for path, value in tuned.items() if path.rpartition(".")[2] == field), None)


def _term(token: str) -> Term:
    negated = token.startswith("-") and len(token) > 1
    body = token[1:] if negated else token
    match = TERM.fullmatch(body)
    if match is None:
        word = _unquoted(body)
        if not word:
            raise FilterError(f"nothing to look for in {token}")
        return Term("", ":", word, negated)
    field, sign, text = ALIASES.get(match["field"], match["field"]), match["sign"], _unquoted(match["value"])
    if not text:
        raise FilterError(f"{match['field']}{sign} … what? For example acc>.99 or arm:head")
    if field == "is":
        if sign not in (":", "=") or text not in PROPERTIES:
            raise FilterError(f"is: takes one of {', '.join(PROPERTIES)}")
        return Term("is", ":", text, negated)
    if field in ("rank", "curve"):
        raise FilterError(f"'{field}' is not a field of the filter; try acc, flops, arm, state, lr")
    if sign == ":":
        return Term(field, ":", text, negated)
    if field in TEXT_FIELDS:
        if sign not in ("=", "!="):
            raise FilterError(f"{field} is text: write {field}:{text} or {field}={text}")
        return Term(field, sign, text, negated)
    if NUMBER.fullmatch(text) is None and field not in COLUMNS and sign in ("=", "!="):
        return Term(field, sign, text, negated)  # a hyperparameter with text values, as in optimizer=adamw
    return Term(field, sign, number(text), negated)


def _holds(term: Term, subject: Subject) -> bool:
    row = subject.row
    if not term.field:
        word = str(term.value).casefold()
        known = (row.study, row.trial, row.arm, row.backbone, row.strategy, row.state)
        everything = (*known, row.reason or "", row.tags or "", row.note or "")
        return any(word in text.casefold() for text in everything) or word in str(row.tuned).casefold()
    if term.field == "is":
        return _is(str(term.value), subject)
    value = subject.dataset if term.field == "dataset" else lookup(row, term.field)
    if value is None:
        return False
    if term.field == "tags":
        has = any(part.casefold() in _text(value).split() for part in str(term.value).split("|"))
        return has != (term.sign == "!=")
    if term.sign == ":":
        text = str(value).casefold()
        return any(part.casefold() in text for part in str(term.value).split("|") if part)
    if isinstance(term.value, str):
        return COMPARISONS[term.sign](_text(value), term.value.casefold())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return COMPARISONS[term.sign](value, term.value)


def _text(value: object) -> str:
    return str(value).casefold()


def _is(name: str, subject: Subject) -> bool:
    if name == "live":
        return subject.row.state in LIVE
    if name == "archived":
        return subject.row.archived
    return name in subject.properties


def _unquoted(text: str) -> str:
    return text.replace('"', "")


def _quoted(text: str, *, bare: bool) -> str:
    if re.search(r"\s", text) or (bare and (text.startswith("-") or TERM.fullmatch(text))):
        return f'"{text}"'
    return text


# --- completion --------------------------------------------------------------------------------------------------

COMMON = ("acc>", "arm:", "state:", "data:", "study:", "is:", "flops<", "time<", "params<")  # are offered first


def vocabulary(subjects: Iterable[Subject]) -> dict[str, list[str]]:
    """What completion knows of these rows: the values of each field that is text, and the other fields without any.

    Aliases are fields too. Values and searched hyperparameters are in alphabetical order.
    """
    values: dict[str, set[str]] = {key: set() for key in TEXT_FIELDS if key not in ("trial", "reason", "energy_source")}
    tuned: set[str] = set()
    for subject in subjects:
        row = subject.row
        for field, found in values.items():
            value = subject.dataset if field == "dataset" else getattr(row, field)
            if value:
                found.add(value)
        tuned.update(path.rpartition(".")[2] for path in row.tuned)
    words: dict[str, list[str]] = {field: sorted(found) for field, found in values.items()}
    numbers = (key for key in COLUMNS if key not in TEXT_FIELDS and key not in ("rank", "curve", "tuned"))
    words |= {key: [] for key in (*sorted(tuned), *numbers)}
    words["is"] = [*PROPERTIES]
    return words | {short: words[field] for short, field in ALIASES.items() if field in words}


def completed(text: str, words: Mapping[str, Sequence[str]]) -> str | None:
    """The text with its last term completed from a `vocabulary`, None if nothing fits."""
    start = next((token.start("token") for token in reversed([*TOKEN.finditer(text)])), 0)
    term = text[start:]
    if not term or text[-1].isspace():
        return None
    match = TERM.fullmatch(term.removeprefix("-"))
    if match is None:
        typed = term.removeprefix("-")
        offers = [*COMMON, *(f"{name}{':' if known else _sign(name)}" for name, known in words.items())]
        fits = [offer for offer in offers if typed and offer.startswith(typed)]
    else:
        typed = match["value"].rpartition("|")[2] if match["sign"] == ":" else match["value"]
        known = words.get(match["field"], ()) if match["sign"] in (":", "=", "!=") else ()
        offers = [f'"{value}"' if typed.startswith('"') or re.search(r"\s", value) else value for value in known]
        fits = [offer for offer in offers if offer.casefold().startswith(typed.casefold())]
    return next((text + offer[len(typed) :] for offer in fits if len(offer) > len(typed)), None)


def _sign(field: str) -> str:
    """The comparison that is usual for a field with numbers."""
    best = COLUMNS[field].best if (field := ALIASES.get(field, field)) in COLUMNS else ""
    return {"high": ">", "low": "<"}.get(best, "=")
