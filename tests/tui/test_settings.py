"""What the user has set, and what the dashboard remembers from one start to the next."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.ranking.leaderboard import COLUMNS, COSTS
from tui.model.view import View
from tui.settings import Remembered, Settings, load_settings, recall, remember, state_path
from tui.testing.bench import ManualDashboard

VIEWS = st.builds(
    View,
    columns=st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True).map(tuple),
    sort=st.sampled_from(sorted(COLUMNS)),
    reverse=st.booleans(),
    cost=st.sampled_from(COSTS),
    filter=st.text(max_size=5),
    study=st.none() | st.just("mnist"),
    grouped=st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", False),
        ("[alerts]\nbell = true", False),
        ("[alerts]\nbell = 3", True),
        ('[alerts]\ncommand = "\'"', True),
        ("[alarms]", True),
        ("[", True),
        ("\xff", True),
    ],
)
def test_settings_that_cannot_be_read_are_told_and_the_defaults_hold(tmp_path: Path, text: str, wrong: bool) -> None:
    path = tmp_path / "settings.toml"
    assert load_settings(path) == (Settings(), None)
    path.write_bytes(text.encode("latin-1"))
    settings, problem = load_settings(path)
    assert (problem is not None) == wrong and (settings == Settings()) == (wrong or not text)


@given(st.builds(Remembered, theme=st.text(max_size=9), screen=st.text(max_size=9), view=VIEWS))
def test_what_is_remembered_is_recalled_without_what_hides_trials(
    tmp_path_factory: pytest.TempPathFactory, what: Remembered
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        assert recall() == Remembered()
        remember(what)
        assert recall() == what.model_copy(update={"view": what.view.changed(filter="", study=None)})


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"view": 3}', b'{"theme": ["x"]}', None])
def test_a_damaged_file_or_a_place_that_cannot_be_written_is_no_error(monkeypatch, tmp_path: Path, content) -> None:
    if content is None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
        remember(Remembered(theme="suite"))
    else:
        state_path().parent.mkdir(parents=True)
        state_path().write_bytes(content)
    assert recall() == Remembered()


@pytest.mark.parametrize(("screen", "shown"), [("studies", "studies"), ("pad", "board"), ("no such", "board")])
def test_the_dashboard_starts_as_it_ended(results: Path, screen: str, shown: str) -> None:
    import asyncio

    last = Remembered(theme="suite-light", screen=screen, view=View(sort="flops", reverse=True))

    async def main() -> None:
        app = ManualDashboard(results, last=last)
        async with app.run_test(size=(100, 30)) as pilot:
            app.poll()
            await pilot.pause()
            assert (app.theme, app.current_mode, app.view) == ("suite-light", shown, last.view)

    asyncio.run(main())
