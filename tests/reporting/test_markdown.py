"""Text of others in a Markdown report is shown as written, whatever is in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from suite.errors import printable
from suite.reporting import report
from suite.reporting.markdown import escape
from suite.store.files import write_model
from suite.store.study import StudyDir

RENDERER = MarkdownIt("gfm-like")  # with tables, strikethrough and links of plain addresses


class View(HTMLParser):
    """Rendered Markdown as its reader sees it: the text, the tags, and the cells of tables."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(RENDERER.render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.text += data


# Pieces that mean something in Markdown or HTML, between others that mean nothing.
PIECES = [
    *"\\`*_{}[]()<>#+-.!|~&$:=@\"'^/ \n\t",
    "a",
    "1",
    "1.",
    "<b>",
    "</td>",
    "<!--",
    "&lt;",
    "&#60;",
    "```",
    "~~",
    "**",
]
PIECES += [
    "](javascript:x)",
    "![",
    "http://",
    "https://e.org",
    "www.e.org",
    "me@e.org",
    "- ",
    "---",
    "===",
    "    ",
    "\r\n",
]
PIECES += ["\x00", "\x1b[31m", "‮", " ", "é", "[x]: /y", "<http://e.org>", "\\|", "$x$", "| --- |"]
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def as_read(text: str) -> str:
    """What a reader should see: line breaks are spaces, and control characters are shown as escapes."""
    return printable(" ".join(text.split()))


@pytest.mark.slow
@given(text=hostile)
@example("![a](b) <i>x</i> | `c` &amp; www.e.org")
@example("1. one")
@example("+ item")
@example("=")
@example("-- -")
@example("- - -")
@example("-5.6")
@example("12.5 %")
def test_it_is_literal_in_every_place(text: str) -> None:
    """In a paragraph, a heading, a title, a caption, an image and a cell: no tag or cell of its own, no link."""
    wanted, shown = as_read(text), escape(text)
    for before, after, tags in (
        ("", "", ["p"]),
        ("# ", "", ["h1"]),
        ("words: ", " more", ["p"]),
        ("", ":", ["p"]),
    ):
        if not wanted and not before + after:
            continue
        view = View(f"{before}{shown}{after}\n")
        assert view.tags == tags
        assert view.text.strip() == (before.removeprefix("# ") + wanted + after).strip()
    table = View(f"| one | two |\n| --- | --- |\n| {shown} | end |\n")
    assert table.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert [cell for line in table.text.splitlines() if (cell := line.strip())] == [
        *("one", "two"),
        *([wanted] if wanted else []),
        "end",
    ]
    image = View(f"![{shown}](x.png)\n")
    assert image.tags == ["p", "img"]
    assert image.alts == [wanted]


@pytest.fixture
def named(small: Any, tmp_path: Path) -> Callable[..., StudyDir]:
    """A copy of the small study with changes to its experiment."""

    def change(**changes: object) -> StudyDir:
        results = tmp_path / "results"
        shutil.copytree(small.results, results)
        study = StudyDir(results, "small")
        file = study.study()
        assert file is not None
        experiment = file.experiment.model_copy(update=changes)
        write_model(study.path / "study.json", file.model_copy(update={"experiment": experiment}))
        return study

    return change


HOSTILE = "Is <img src=x onerror=alert(1)> [safe](javascript:alert(1)) | *really*?\n\n# Not a heading"


@pytest.mark.slow
def test_a_hostile_study_forms_no_markup(named: Callable[..., StudyDir], tmp_path: Path) -> None:
    """The question, and in a trial's record the host's hardware and the command, as a report quotes them."""
    study = named(question=HOSTILE)
    for state in study.states():
        assert state.record is not None and state.record.provenance is not None
        provenance = state.record.provenance.model_copy(update={"command": HOSTILE, "hardware": HOSTILE})
        record = state.record.model_copy(update={"provenance": provenance})
        write_model(study.trial(state.id).path / "result.json", record)
    report.write(study.path.parent, study, tmp_path / "r.md")
    view = View((tmp_path / "r.md").read_text())
    assert view.text.count(as_read(HOSTILE)) == 3
    assert view.tags.count("h1") == 1
    assert "a" not in view.tags and "em" not in view.tags
    assert view.tags.count("img") == len(list((tmp_path / "r-figures").iterdir()))
