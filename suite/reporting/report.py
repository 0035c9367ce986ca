"""One page about a study: everything is read from the results directory, nothing from the network.

`report.html` is one self-contained file; `report.md` has its pictures as PNGs in a folder beside it.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from suite.reporting.document import Gallery, Picture, Section
from suite.reporting.facts import Facts, gather
from suite.reporting.markdown import escape
from suite.reporting.plots_style import as_png, as_svg
from suite.reporting.sections import sections
from suite.reporting.sections_protocol import summary
from suite.store.outputs import check_file, check_folder, write_file
from suite.store.study import StudyDir

OnPicture = Callable[[int, int], None]  # called with the pictures drawn so far and the number of all


def write(results: Path, study: StudyDir, to: Path, *, on_picture: OnPicture = lambda *_: None) -> Path:
    """Write report.html or report.md, as the suffix of `to` says. Returns `to`.

    Raises InputError for another suffix, a place that cannot be written, a study in which nothing has finished, and
    damaged files; WorkError where the disk is full.
    """
    writers = {".html": _html, ".htm": _html, ".md": _markdown}
    check_file(to, tuple(writers))
    facts = gather(results, study)
    parts = sections(facts)
    write_file(to, writers[to.suffix.lower()](facts, parts, to, on_picture))
    return to


def _pictures(parts: Sequence[Section]) -> list[Picture]:
    blocks = [block for section in parts for block in section.blocks]
    return [picture for block in blocks if isinstance(block, Gallery) for picture in block.pictures]


def _render(template: str, facts: Facts, parts: Sequence[Section], source: Callable[[Picture], Markup]) -> str:
    """The page. Every expression of a template is escaped; `source` returns a picture's address as `Markup`."""
    html = template.endswith(".html.jinja")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("suite.reporting", package_path="templates"),
        autoescape=html,
        finalize=None if html else escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plan = facts.study.experiment
    return environment.get_template(template).render(
        title=f"{facts.study.study}: {plan.question}",
        study=facts.study.study,
        question=plan.question,
        dataset=plan.dataset,
        made=time.strftime("%Y-%m-%d %H:%M"),
        summary=summary(facts),
        sections=parts,
        source=source,
    )


def _html(facts: Facts, parts: Sequence[Section], to: Path, on_picture: OnPicture) -> str:
    pictures = _pictures(parts)
    sources: dict[int, Markup] = {}
    for done, picture in enumerate(pictures):
        on_picture(done, len(pictures))
        encoded = base64.b64encode(as_svg(picture.draw())).decode()
        sources[id(picture)] = Markup(f"data:image/svg+xml;base64,{encoded}")
    on_picture(len(pictures), len(pictures))
    return _render("report.html.jinja", facts, parts, lambda picture: sources[id(picture)])


def _markdown(facts: Facts, parts: Sequence[Section], to: Path, on_picture: OnPicture) -> str:
    folder = to.parent / f"{to.stem}-figures"
    check_folder(folder)
    link = quote(os.fsencode(folder.name))
    pictures = _pictures(parts)
    for done, picture in enumerate(pictures):
        on_picture(done, len(pictures))
        write_file(folder / f"{picture.name}.png", as_png(picture.draw()))
    on_picture(len(pictures), len(pictures))
    return _render("report.md.jinja", facts, parts, lambda picture: Markup(f"{link}/{quote(picture.name)}.png"))
