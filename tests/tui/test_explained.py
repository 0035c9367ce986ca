"""The tab with explanations of a trial's answers, and the key that asks for them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.spec import Attribution, Explanation, Explanations, Neighbour, Raster
from suite.store.files import write_model
from suite.store.study import StudyDir
from suite.store.trial import EXPLANATIONS
from tui.draw import explanations as draw
from tui.screens.confirm import ConfirmScreen

SIDE = 28


def picture(channels: int = 1) -> Raster:
    data = bytes(range(256))[: SIDE * channels] * SIDE
    return Raster(height=SIDE, width=SIDE, channels=3 if channels == 3 else 1, data=base64.b64encode(data).decode())


def some(sha256: str = "0" * 64) -> Explanations:
    values = bytes((256 - 100 if x < SIDE // 2 else 100) for _ in range(SIDE) for x in range(SIDE))
    facts = {"height": SIDE, "width": SIDE, "largest": 2.0, "data": base64.b64encode(values).decode()}
    maps = tuple(
        Attribution(method=method, deletion=0.25, random=0.75, **facts) for method in ("saliency", "occlusion")
    )
    near = Neighbour(index=3, label=4, distance=0.125, picture=picture(3))
    one = Explanation(
        image="validation 7", label=4, predicted=9, probability=0.98, target=9, target_probability=0.98,
        picture=picture(), maps=maps, nearest=(near,),
    )  # fmt: skip
    classes = tuple("0123456789")
    return Explanations(
        trial="mnist/0000", artifact_sha256=sha256, classes=classes, explanations=(one,), notes=("A note.",)
    )


def explain(results: Path, found: Explanations) -> None:
    study = StudyDir(results, "mnist")
    for trial in study.trials():
        if trial.record() is not None:
            write_model(trial.path / EXPLANATIONS, found)


async def look(app, pilot) -> None:
    app.poll()
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_tab_shows_what_is_kept_as_soon_as_it_is(results: Path, drive, screen_text, size: tuple[int, int]) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter", "left_square_bracket")
        await look(app, pilot)
        assert app.screen.tab == "explained" and "No explanations.json" in screen_text(app)
        explain(results, some())
        await look(app, pilot)
        text = screen_text(app)
        assert "A note." in text and "validation 7: 9 98.0%, it is 4" in text
        assert "saliency" in text and "0.25 of 0.75" in text and "▀" * 10 in text
        explain(results, some("f" * 64))  # of other weights
        await look(app, pilot)
        assert "No explanations.json" in screen_text(app)

    drive(results, script, size=size)


def test_a_key_asks_for_them(results: Path, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter", "W")
        await look(app, pilot)
        assert isinstance(app.screen, ConfirmScreen)
        assert "mnist-suite explain mnist/0" in screen_text(app)
        await pilot.press("n")
        assert not app.launching.tasks and app.screen.tab == "explained"

    drive(results, script)


def test_a_dashboard_that_only_reads_does_not_ask(results: Path, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter", "W")
        await look(app, pilot)
        assert not isinstance(app.screen, ConfirmScreen)

    drive(results, script, readonly=True)


def test_signs_are_told_apart_with_colours_and_without() -> None:
    attribution = some().explanations[0].maps[0]
    lines = draw.overlaid([[0] * SIDE] * SIDE, attribution.rows)
    assert len(lines) == SIDE // 2 and lines[0].cell_len == SIDE
    styles = {str(span.style) for span in lines[0].spans}
    assert len(styles) == 2
    (line, *_) = draw.shaded(attribution, SIDE)
    assert line.plain == draw.MINUS * (SIDE // 2) + draw.SHADES[-1] * (SIDE // 2)


@given(
    st.lists(st.lists(st.floats(-127, 127), min_size=1, max_size=1).map(lambda row: row * 9), min_size=1, max_size=40)
)
def test_a_small_form_keeps_the_range_of_its_values(rows: list[list[float]]) -> None:
    small = draw.boxed(rows, 8)
    assert len(small) == min(8, len(rows)) and all(len(row) == 8 for row in small)
    before, after = [v for row in rows for v in row], [v for row in small for v in row]
    assert min(before) - 1e-9 <= min(after) and max(after) <= max(before) + 1e-9
