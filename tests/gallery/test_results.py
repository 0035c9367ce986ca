"""The published results of this repository: every figure in them, and in what quotes them, comes from a study."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from suite.gallery import publish
from suite.gallery.quotes import QUOTE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
QUOTING = re.search(r"^QUOTING := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
assert QUOTING
DOCUMENTS = QUOTING[1].split()

# What a measured accuracy, difference or ratio looks like; "95 %" of an interval and "10 % of the labels" do not.
MEASURED = re.compile(r"\d+\.\d+ ?%|[+-]\d+\.\d+ points|\d(\.\d+)? times\b|\d+\.\d+ (s|ms|min)\b")

OTHERS = re.compile(r"arXiv:\d|https://")  # a line with a publication has figures of others


def test_pages_pictures_and_quotes_follow_from_the_tables() -> None:
    assert publish.differing(RESULTS, [ROOT / name for name in DOCUMENTS]) == []


def test_there_are_pages_with_a_final_evaluation_each() -> None:
    pages = publish.published(RESULTS)
    assert len(pages) >= 8
    for name, found in pages.items():
        assert found.get("study", "readings of test").value, name
        assert found.text("search command").startswith("mnist-suite sweep"), name
        assert (found.get("study", "seeds").value or 0) >= 3, name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_quote_leads_to_a_row(name: str) -> None:
    places = [link.partition("#") for link in re.findall(r"\((\S+?#\S+) \"", (ROOT / name).read_text())]
    assert places
    for path, _, place in places:
        page = ((ROOT / name).parent / path).read_text()
        assert page.count(f'<a id="{place}"></a>') == 1, (path, place)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_figure_is_typed_by_hand(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert QUOTE.search(text)
    ours = [line for line in QUOTE.sub("", text).splitlines() if not OTHERS.search(line)]
    typed = [match[0] for line in ours for match in MEASURED.finditer(line)]
    assert typed == []
