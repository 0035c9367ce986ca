"""The field for the filter: what is offered, and the keys that take it."""

from __future__ import annotations

from tui.widgets.filter_field import FilterField


def test_tab_and_the_right_arrow_take_a_completion(results, drive) -> None:
    async def script(app, pilot) -> None:
        field = app.screen.query_one(FilterField)
        await pilot.press("slash", *"sta")
        await pilot.pause()
        await pilot.press("tab")
        assert field.value == "state:" and field.has_focus
        await pilot.press(*"fi")
        await pilot.pause()
        await pilot.press("right")
        assert field.value == "state:finished" and app.view.filter == "state:finished"
        await pilot.press("tab")
        assert not field.has_focus  # nothing is left to complete

    drive(results, script)
