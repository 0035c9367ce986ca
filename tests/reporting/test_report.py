"""The report: one file, everything in it, readable by a browser, and the same figures as everywhere else."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats as scipy_stats

from suite.errors import InputError
from suite.evaluation import final as evaluation_final
from suite.execution.stop import Stop
from suite.ranking.final import (
    EVALUATION_FILE,
    Comparison,
    FinalEvaluation,
    Finalist,
    McNemarFigures,
    PairedFigures,
    Reading,
)
from suite.ranking.mistakes import Mistake
from suite.ranking.statistics import mcnemar, paired_t, sample, wilson
from suite.reporting import fonts, plots_accuracy, plots_mistakes, plots_search, report, sections_mistakes
from suite.reporting.document import Gallery, Table, Text
from suite.reporting.facts import gather
from suite.reporting.plots_style import as_svg, looks
from suite.reporting.sections import sections
from suite.reporting.sections_accuracy import fronts
from suite.reporting.sections_costs import costs
from suite.reporting.sections_protocol import final, summary
from suite.reporting.sections_search import hyperparameters, labels
from suite.reporting.spaces import joined
from suite.spec import Arm, Choice, Experiment, LogFloat, Recipe, Uniform
from suite.store.study import StudyDir

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v or "" for k, v in attrs}
        self.sources += [found["src"]] if "src" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.alts += [found.get("alt", "")] if tag == "img" else []
        self.ids |= {found["id"]} if "id" in found else set()

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def html(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    steps: list[tuple[int, int]] = []
    to = tmp_path_factory.mktemp("report") / "report.html"
    report.write(small.results, small.study, to, on_picture=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] > 10
    return to


@pytest.mark.slow
def test_it_is_one_file_that_needs_no_network(html: Path) -> None:
    page = Page(html.read_text())
    assert [p.name for p in html.parent.iterdir()] == ["report.html"]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert all(link == "data:," or link.removeprefix("#") in page.ids for link in page.links)
    assert all(page.alts)
    assert "url(" not in html.read_text()
    assert html.stat().st_size < 4_000_000


def test_every_section_is_there(html: Path, small: Any) -> None:
    page = Page(html.read_text())
    assert "Does <b>the</b> machinery hold | or not?" in page.text  # shown as written, not obeyed
    for title in ("Protocol", "Final evaluation", "Leaderboard", "Accuracy against cost", "Learning curves"):
        assert title in page.text
    for title in ("Hyperparameters", "Mistakes", "Every class", "Calibration", "What it cost", "Provenance"):
        assert title in page.text
    for row in small.outcome.finalists:
        assert f"{100 * row.test.mean:.3f} %" in page.text
    assert "optimistic" in page.text
    assert "read once" in page.text
    assert small.study.study().data_hash in page.text


def test_what_is_left_out_of_a_cost_is_said_where_it_is_listed(small: Any) -> None:
    """No part of the page refers to a row that is not there."""
    facts = gather(small.results, small.study)
    alone = replace(facts, costs=replace(facts.costs, pretraining=()))
    for found, listed in ((facts, True), (alone, False)):
        said = " ".join(str(block) for block in fronts(found).blocks if isinstance(block, Text))
        rows = [row[0] for block in costs(found).blocks if isinstance(block, Table) for row in block.rows]
        assert ("without pretraining, which What it cost lists" in said) == listed
        assert any(row.startswith("pretraining ") for row in rows) == listed
        assert ("in all, with the shares of pretraining" in rows) == listed and ("in all" in rows) != listed


@pytest.mark.slow
def test_the_same_study_gives_the_same_pictures(html: Path, small: Any, tmp_path: Path) -> None:
    report.write(small.results, small.study, tmp_path / "again.html")
    assert Page((tmp_path / "again.html").read_text()).sources == Page(html.read_text()).sources


@pytest.mark.slow
def test_markdown_has_its_pictures_beside_it(small: Any, tmp_path: Path) -> None:
    name = os.fsdecode(b"our r\xe9port")  # a space would end the link, and what is no text cannot be written
    report.write(small.results, small.study, tmp_path / f"{name}.md")
    text = (tmp_path / f"{name}.md").read_text()
    named = [os.fsdecode(unquote_to_bytes(link)) for link in re.findall(r"!\[[^]]+\]\(([^) ]+)\)", text)]
    assert len(named) > 10
    assert {tmp_path / name for name in named} == set((tmp_path / f"{name}-figures").iterdir())
    for name in named:
        with Image.open(tmp_path / name) as image:
            assert image.width > 600
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(re.fullmatch(r"(\| ([^|]|\\\|)*)+\| ?", line) for line in tables)


def test_a_search_without_evaluation_or_mistakes_is_reported_as_such(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results, ignore=shutil.ignore_patterns("final", "validation.json"))
    facts = gather(results, StudyDir(results, "small"))
    titles = [section.title for section in sections(facts)]
    assert "Final evaluation" not in titles
    assert "Mistakes" not in titles
    report.write(results, StudyDir(results, "small"), tmp_path / "r.html")
    assert "test images have not been read" in (tmp_path / "r.html").read_text()


def test_what_cannot_be_reported_is_refused(small: Any, tmp_path: Path, suite: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"\.html or \.htm or \.md"):
        report.write(small.results, small.study, tmp_path / "report.pdf")
    results = tmp_path / "results"
    shutil.copytree(small.results, results, ignore=shutil.ignore_patterns("trials"))
    refused = suite("report", "small", "--to", "report.html", "--results", results)
    assert refused.returncode == 2
    assert "no finished trial" in refused.stderr


def test_a_reading_without_an_evaluation_is_reported(small: Any, tmp_path: Path) -> None:
    """As a kill in between leaves it, or damage to evaluation.json."""
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    (results / "small" / "final" / EVALUATION_FILE).write_text('{"cut o')
    facts = gather(results, StudyDir(results, "small"))
    assert facts.evaluation is None
    assert "test images were read" in summary(facts)


STRANGE = {
    "readings.jsonl": "5",
    "evaluation.json": "{}",
    "test.json": json.dumps({"accuracy": [5], "classes": ["0"], "confusion": [5], "worst": []}),
    "validation.json": '{"classes": [], "confusion": [5], "worst": []}',
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_files_of_a_study_are_named(small: Any, tmp_path: Path, name: str) -> None:
    """A study may come from anywhere: a file that is not what it should be is found where it is read."""
    results = tmp_path / "results"
    searched = name == "validation.json"  # of use where nothing was tested
    shutil.copytree(small.results, results, ignore=shutil.ignore_patterns("final") if searched else None)
    for path in results.rglob(name):
        path.write_text(STRANGE[name])
    with pytest.raises(InputError, match=rf"{re.escape(name)} is damaged"):
        report.write(results, StudyDir(results, "small"), tmp_path / "r.html")


def test_a_fault_of_the_report_itself_is_not_called_damage(small: Any, tmp_path: Path) -> None:
    """Only parsing may find a file damaged: a TypeError from anywhere else stays a TypeError."""

    def faulty(done: int, total: int) -> None:
        raise TypeError("a fault of ours")

    with pytest.raises(TypeError, match="a fault of ours"):
        report.write(small.results, small.study, tmp_path / "r.html", on_picture=faulty)


def three_arms(seeds: int = 5) -> FinalEvaluation:
    """An evaluation in which b is first on validation, c second, and a first on test."""
    rng = np.random.default_rng(3)
    rows = []
    for arm, validation, test in (("a", 0.970, 0.985), ("b", 0.990, 0.980), ("c", 0.980, 0.970)):
        accuracies = (test + 0.003 * rng.standard_normal(seeds)).round(4).tolist()
        rows.append(
            Finalist(
                arm=arm,
                trial=f"0000-{arm}",
                params={},
                search_accuracy=validation,
                represents_arm=True,
                runs=tuple(f"000{k}-{arm}" for k in range(seeds)),
                seeds=tuple(range(seeds)),
                images=10_000,
                accuracies=tuple(accuracies),
                test=sample(accuracies),
                validation=sample([validation] * seeds),
                wilson=wilson(accuracies[0], 10_000),
                ece=sample([0.01] * seeds),
            )
        )
    pairs = []
    for one, two in combinations(rows, 2):
        mc = McNemarFigures(**asdict(mcnemar(30, 20)))
        t = PairedFigures(**asdict(paired_t(one.accuracies, two.accuracies)))
        pairs.append(Comparison(first=one.arm, second=two.arm, mcnemar=mc, paired_t=t))
    reading = Reading(time=1.0, dataset="mnist", earlier_in_other_studies=0)
    return FinalEvaluation(
        study="s",
        dataset="mnist",
        top=1,
        seeds=seeds,
        finalists=tuple(rows),
        comparisons=tuple(pairs),
        readings=(reading,),
    )


def test_the_lead_is_that_of_the_arms_first_on_validation(small: Any) -> None:
    """Interval and p value of the lead are both adjusted for all comparisons, by Bonferroni."""
    evaluation = three_arms()
    facts = replace(gather(small.results, small.study), evaluation=evaluation)
    text = summary(facts)
    b, c = (np.array(row.accuracies) for row in evaluation.finalists[1:])
    wanted = scipy_stats.ttest_rel(b, c)
    low, high = (100 * bound for bound in wanted.confidence_interval(1 - 0.05 / 3))
    assert "b, first by validation accuracy, minus c, the second" in text
    assert f"(95 % {low:+.2f} to {high:+.2f}, paired over seeds, adjusted for 3 comparisons; p " in text
    assert f"p {3 * wanted.pvalue:.3f})" in text
    assert ("b is ahead" in text) == (low > 0)
    table = next(b for b in final(facts).blocks if isinstance(b, Table) and "in pairs" in b.caption)  # type: ignore[union-attr]
    cells = next(row for row in table.rows if row[0] == "b - c")
    assert cells[2:4] == [f"{low:+.2f} to {high:+.2f}", f"{3 * wanted.pvalue:.3f}"]
    assert "Bonferroni" in table.caption and "Holm" in table.caption


def test_values_outside_the_space_are_not_drawn(small: Any) -> None:
    """A study put together by hand may hold trials of another space; no picture can place their values."""
    facts = gather(small.results, small.study)
    strange = [r._replace(tuned={"lr": -1.0, "batch_size": r.tuned["batch_size"]}) for r in facts.rows]
    assert "slice-lr" in names(hyperparameters(facts))
    assert "slice-lr" not in names(hyperparameters(replace(facts, rows=strange)))


def test_arms_differ_in_more_than_colour() -> None:
    drawn = list(looks([f"arm{i}" for i in range(12)]).values())
    assert len({(look.marker, str(look.line)) for look in drawn}) == len(drawn)
    assert len({look.marker for look in drawn[:10]}) == 10


def test_parallel_coordinates_have_a_line_a_trial(small: Any) -> None:
    facts = gather(small.results, small.study)
    space = small.study.study().experiment.space
    drawn = plots_search.parallel(facts.rows, space, facts.images, facts.looks)
    lines = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == len(space) + 1]
    rows = sorted(facts.rows, key=lambda r: (r.state == "finished", r.accuracy))
    assert len(lines) == len(rows) == 6
    heights = [line.get_ydata()[-1] for line in lines]
    assert heights[-1] == max(heights) == 1.0
    for state in ("finished", "pruned"):  # the more accurate the higher
        own = [(r.accuracy, h) for r, h in zip(rows, heights) if r.state == state]
        assert [h for _, h in own] == sorted(h for _, h in own)
    faint = [line for line, r in zip(lines, rows) if r.state == "pruned"]
    assert faint
    assert all(line.get_alpha() <= 0.5 and line.get_marker() == "None" for line in faint)
    bold = {r.arm: line for line, r in zip(lines, rows) if line.get_linewidth() > 2}
    assert set(bold) == set(facts.arms)
    assert len({(line.get_marker(), line.get_linestyle()) for line in bold.values()}) == 2  # without colour as well
    rates = [math.log(r.tuned["lr"] / 1e-2) / math.log(20) for r in rows]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx(rates)


def test_arms_with_spaces_of_their_own_have_pictures_of_their_own(small: Any) -> None:
    facts = gather(small.results, small.study)
    plan = facts.study.experiment
    wider = plan.arms["net-head"].model_copy(update={"space": {"lr": LogFloat(low=1e-4, high=1.0)}})
    plan = plan.model_copy(update={"arms": {**plan.arms, "net-head": wider}})
    facts = replace(facts, study=facts.study.model_copy(update={"experiment": plan}))
    assert names(hyperparameters(facts)) >= {"parallel", "slice-lr", "slice-batch_size"}  # the same names: one picture
    other = plan.arms["net-head"].model_copy(update={"space": {"momentum": Uniform(low=0.1, high=0.9)}})
    plan = plan.model_copy(update={"space": {}, "arms": {**plan.arms, "net-head": other}})
    assert names(hyperparameters(replace(facts, study=facts.study.model_copy(update={"experiment": plan})))) == set()
    assert joined([LogFloat(low=1e-2, high=0.1), LogFloat(low=1e-3, high=1e-2)]) == LogFloat(low=1e-3, high=0.1)
    assert joined([Choice(values=(1, 2)), Choice(values=(2, 4))]) == Choice(values=(1, 2, 4))


def names(section: Any) -> set[str]:
    """Of the pictures in a section; all can be drawn."""
    blocks = section.blocks if section is not None else []
    pictures = [p for block in blocks if isinstance(block, Gallery) for p in block.pictures]
    assert all(as_svg(p.draw()).startswith(b"<?xml") for p in pictures)
    return {p.name for p in pictures}


@pytest.mark.slow
def test_arms_that_differ_in_their_labels_alone_are_drawn_against_them(
    tmp_path: Path, search: Callable[..., StudyDir], small: Any
) -> None:
    arm = Arm(backbone="net", recipe=Recipe(epochs=1, batch_size=54, lr=0.05))
    shares = (0.002, 0.01)
    plan = Experiment(
        name="few",
        question="How many labels?",
        dataset="mnist",
        arms={f"net-{100 * share:g}": arm.model_copy(update={"fraction": share}) for share in shares},
        trials=2,
        pruning=None,
    )
    study = search(plan, tmp_path)
    assert [s.record.steps for s in study.states() if s.record] == [3, 10]  # of some 110 and of 540 images
    for _ in evaluation_final.train(
        final := evaluation_final.plan(tmp_path, study, top=1, seeds=2, place="cpu"), stop=Stop()
    ):
        pass
    found = {row.arm: row.test.mean for row in evaluation_final.judge(final).finalists}
    section = labels(gather(tmp_path, study))
    assert names(section) == {"labels", "labels-test"}
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert list(table.head) == ["arms", "0.2 %", "1 %"]
    assert table.rows == [["net", *(f"{100 * found[arm]:.2f} %" for arm in plan.arms)]]
    assert labels(gather(small.results, small.study)) is None  # arms that differ in more than that


def test_perfect_models_and_long_names_can_be_drawn() -> None:
    mistake = Mistake(label=0, predicted=1, probability=1.0, pixels=((0, 255),))
    pictures: list[Figure] = [
        plots_accuracy.curves({"a": [[(1, 1.0), (2, 1.0)]]}, 100, looks(["a"])),
        plots_mistakes.confusion([[5, 0], [0, 5]], ["T-shirt/top", "Ankle boot"]),
        plots_mistakes.confusion([[5, 0], [0, 5]], ["$x_{$", "5$ or 6$"]),
        plots_mistakes.worst([mistake], ["T-shirt/top", "Bag"]),
        plots_mistakes.confusion([[1] * 47] * 47, [str(i) for i in range(47)]),
    ]
    assert all(as_svg(made).startswith(b"<?xml") for made in pictures)


@pytest.fixture
def font(tmp_path: Path) -> Path:
    """A font that has three characters, as squares."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square, order = pen.glyph(), [".notdef", "one", "two", "three"]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(dict(zip(map(ord, "猫犬鳥"), order[1:])))
    builder.setupGlyf(dict.fromkeys(order, square))
    builder.setupHorizontalMetrics(dict.fromkeys(order, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": f"Three {tmp_path.name}", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "three.ttf")
    return tmp_path / "three.ttf"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("there", [True, False])
def test_class_names_in_any_script_are_legible(
    small: Any, font: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Written with a font that has them; where there is none, as numbers with a key. No warning either way."""
    matplotlibs = Path(matplotlib.get_data_path()).rglob("*.ttf")
    monkeypatch.setattr(fonts, "installed", lambda: [*map(str, matplotlibs), *([str(font)] if there else [])])
    fonts._families.cache_clear()
    assert fonts.families("Größe ≥ 3\n") == (fonts.OWN,)
    names = ["猫", "犬", "鳥", *"3456789"]
    facts = gather(small.results, small.study)
    mistakes = {arm: one.model_copy(update={"classes": tuple(names)}) for arm, one in facts.tested.items()}
    facts = replace(facts, study=facts.study.model_copy(update={"classes": tuple(names)}), tested=mistakes)
    section = sections_mistakes.mistakes(facts)
    assert section is not None
    key = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert ("1 猫, 2 犬, 3 鳥, 4 3" in key) != there
    written: list[matplotlib.text.Text] = []
    for picture in (picture for block in section.blocks if isinstance(block, Gallery) for picture in block.pictures):
        made = picture.draw()
        assert as_svg(made).startswith(b"<?xml")
        written += [t for t in made.findobj(matplotlib.text.Text) if set(t.get_text()) & set("猫犬鳥")]
    assert bool(written) == there
    assert all(text.get_fontfamily()[1].startswith("Three") for text in written)
    fonts._families.cache_clear()


def chromium(*arguments: str, profile: Path) -> None:
    """Runs it without a window; whatever it writes to its console is a failure."""
    command = [str(CHROMIUM), *QUIET.split(), f"--user-data-dir={profile}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr


@pytest.mark.web
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_draws_it_without_errors(html: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    chromium(f"--window-size={width},3000", f"--screenshot={shot}", html.as_uri(), profile=tmp_path / "profile")
    with Image.open(shot) as image:
        assert image.size == (width, 3000)
        greys = image.convert("L")
        assert greys.getextrema() == (greys.getextrema()[0], 255)
        assert greys.getextrema()[0] < 60
        edge = greys.crop((width - 4, 0, width, 3000))
        assert edge.getextrema() == (255, 255)  # nothing runs over the edge of the screen


@pytest.mark.web
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_it_can_be_printed_on_a4(html: Path, tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    chromium("--no-pdf-header-footer", f"--print-to-pdf={printed}", html.as_uri(), profile=tmp_path / "profile")
    boxes = re.findall(rb"/MediaBox\s*\[([^]]+)\]", printed.read_bytes())
    assert 4 <= len(boxes) <= 20
    assert all([round(float(edge)) for edge in box.split()] == [0, 0, 595, 842] for box in boxes)  # points
