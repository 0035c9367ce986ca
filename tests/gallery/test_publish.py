"""Published pages: the study's own figures, made from the CSV alone, and documents that quote them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from suite.errors import InputError
from suite.gallery import figures, publish
from suite.gallery.collect import collect
from suite.gallery.page import anchor, page
from suite.store.study import StudyDir


@pytest.fixture(scope="module")
def folder(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the small study."""
    made = tmp_path_factory.mktemp("pages")
    publish.publish(small.results, [small.study], made)
    publish.write(made)
    return made


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed."""
    return shutil.copytree(folder, tmp_path / "pages")


def test_figures_are_those_of_the_final_evaluation(small: Any) -> None:
    found = collect(small.results, small.study)
    assert found.arms == list(small.study.study().experiment.arms)
    for row in small.outcome.representatives:
        test = found.get(row.arm, "test")
        assert (test.value, test.low, test.high, test.n) == (row.test.mean, row.test.low, row.test.high, row.test.n)
        assert found.get(row.arm, "search").value == row.search_accuracy
    assert len(found.pairs) == len(small.outcome.comparisons)
    assert found.text("question") == small.study.study().experiment.question
    assert found.get("study", "trials").value == 6


def test_a_csv_holds_all_that_its_page_needs(small: Any, folder: Path) -> None:
    found = collect(small.results, small.study)
    again = figures.read(folder / "small.csv")
    assert page(again) == (folder / "small.md").read_text()
    assert figures.as_csv(again) == figures.as_csv(found) == (folder / "small.csv").read_text()


def test_a_page_says_what_a_reader_needs(small: Any, folder: Path) -> None:
    text = (folder / "small.md").read_text()
    for row in small.outcome.representatives:
        assert f"{100 * row.test.mean:.2f} %" in text
        assert f'id="{anchor(row.arm, "test")}"' in text
    assert r"Does \<b\>the\</b\> machinery hold \| or not?" in text
    assert "the evaluation" in text and "mnist-suite gallery small --to pages" in text
    assert "pruned" in text and "torch 2." in text and "read once" in text
    with Image.open(folder / "pictures/small.png") as image:
        assert image.width > 800
        image.load()
    assert r"machinery hold" in (folder / "README.md").read_text()


def test_what_is_published_is_up_to_date_until_a_figure_changes(own: Path) -> None:
    assert publish.differing(own) == []
    table = own / "small.csv"
    table.write_text(table.read_text().replace("net-head,test,0.", "net-head,test,0.1"))
    names = {path.name for path in publish.differing(own)}
    assert names == {"small.md", "small.png"} | ({"README.md"} & names)
    assert set(publish.write(own)) >= {own / "small.md", own / "pictures/small.png"}
    assert publish.differing(own) == []


def test_a_figure_typed_by_hand_is_found(own: Path) -> None:
    text = (own / "small.md").read_text()
    (own / "small.md").write_text(re.sub(r"\d\d\.\d\d %", "99.99 %", text, count=1))
    assert publish.differing(own) == [own / "small.md"]


def test_quotes_follow_the_figures(own: Path, tmp_path: Path, small: Any) -> None:
    document = tmp_path / "docs" / "answer.md"
    document.parent.mkdir()
    document.write_text(
        'It has [guess](nowhere "small: net-scratch, test"), [](x "small: net-scratch / net-head, FLOPs of training") '
        'as much, [a link](of "another kind").\n'
    )
    assert publish.write(own, [document]) == [document]
    row = next(row for row in small.outcome.representatives if row.arm == "net-scratch")
    text = document.read_text()
    assert f"[{100 * row.test.mean:.2f} % (" in text
    assert '(../pages/small.md#net-scratch "small: net-scratch, test")' in text
    assert re.search(r"\[[\d.e+]+ (times|%)\]", text)
    assert '[a link](of "another kind")' in text
    assert publish.write(own, [document]) == []


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("other: net-head, test", "there is no page other; there are: small"),
        ("small: nobody, test", "'test' there is about: net-scratch, net-head"),
        ("small: net-head, taste", "small has no 'taste' at all"),
        ("small: net-head / study, test", "small has no such figure"),
        ("small: net-scratch - net-head, difference", "'difference' there is about: net-head - net-scratch"),
    ],
)
def test_a_quote_of_nothing_is_refused(own: Path, tmp_path: Path, title: str, said: str) -> None:
    document = tmp_path / "d.md"
    document.write_text(f'\n\n[x](y "{title}")\n')
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        publish.write(own, [document])
    assert f"{document}, line 3" in str(refused.value)
    assert document.read_text() == f'\n\n[x](y "{title}")\n'


HEAD = ",".join(figures.COLUMNS) + "\n"


@pytest.mark.parametrize("text", ["", "a,b\n", HEAD, f"{HEAD}cnn,test,high,,,,\n", f"{HEAD}a,b\n", "\0"])
def test_a_damaged_table_is_refused(own: Path, text: str) -> None:
    (own / "small.csv").write_text(text)
    with pytest.raises(InputError, match=r"small\.csv is damaged"):
        publish.write(own)


def test_a_study_without_final_evaluation_is_refused(small: Any, tmp_path: Path) -> None:
    results = shutil.copytree(small.results, tmp_path / "results")
    shutil.rmtree(results / "small" / "final")
    with pytest.raises(InputError, match="mnist-suite evaluate small --final"):
        publish.publish(results, [StudyDir(results, "small")], tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def test_the_command(small: Any, tmp_path: Path, run: Any) -> None:
    pages, document = tmp_path / "pages", tmp_path / "README.md"
    document.write_text('[](x "small: net-head, test")\n')
    common = ("--to", pages, "--quote", document, "--quiet")
    done = run("gallery", "small", "--results", small.results, *common, "--json")
    assert done.code == 0
    names = {Path(path).name for path in json.loads(done.out)["written"]}
    assert names == {"small.csv", "small.md", "README.md", "small.png"}
    assert run("gallery", *common, "--check").code == 0
    document.write_text(document.read_text().replace("%", "percent", 1))
    done = run("gallery", *common, "--check")
    assert done.code == 1
    assert str(document) in done.err and "Make them anew" in done.err
    assert "percent" in document.read_text()
    assert run("gallery", *common).code == 0
    assert run("gallery", *common, "--check").code == 0
    assert run("gallery", "small", "--check", *common).code == 2
    assert run("gallery", "--to", tmp_path / "nowhere").code == 2
