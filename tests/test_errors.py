"""Paths that a user gives: one function expands and refuses them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from suite.errors import InputError, expand_user
from suite.store.files import cache_dir, scratch_dir
from tui.saved_views import load_views

NAMES = st.text(st.sampled_from("ab~./ \0é%-\n\ud800\udc80"), max_size=12)


@given(NAMES)
@example("./ ")
@example("a\ud800")
def test_expanding_twice_changes_nothing(text: str) -> None:
    try:
        once = expand_user(text)
    except InputError as error:
        assert repr(text) in str(error)
        assert text.startswith("~") or not text.strip() or "\0" in text or "\ud800" in text
        return
    assert expand_user(once) == once
    if not text.startswith("~"):
        assert os.path.abspath(once) == os.path.abspath(text)


def test_a_home_is_put_in_and_a_stranger_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert expand_user("~/a") == tmp_path / "a"
    assert expand_user("./~nobody_here") == tmp_path / "~nobody_here"
    with pytest.raises(InputError, match=r"--to '~nobody_here/x' .* does not exist"):
        expand_user("~nobody_here/x", "--to")
    monkeypatch.setenv("MNIST_SUITE_CACHE", "~nobody_here")
    with pytest.raises(InputError, match="MNIST_SUITE_CACHE"):
        cache_dir()


def test_without_a_home_the_dashboard_has_a_place_for_what_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "MNIST_SUITE_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="MNIST_SUITE_CACHE"):
        cache_dir()
    assert os.access(scratch_dir("pad"), os.W_OK)
    assert load_views() == {}
    assert list(tmp_path.iterdir()) == []


def nobody(uid: int) -> None:
    raise KeyError(uid)
