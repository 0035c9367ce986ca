"""What `evaluate --shift` leaves: read as it was written, and the figures that follow from the counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from suite.ranking.shift import SHIFT_FILE, Corrupted, FontAnswers, Level, Shift, alike, as_text, shifts, write_shift
from suite.store.study import StudyDir


@st.composite
def found(draw: st.DrawFn, trial: str = "0003-0123abcd", arm: str = "net", part: str = "validation") -> Shift:
    right = draw(st.integers(1, 100))
    kinds = [
        Corrupted(
            name=name,
            unit="degrees",
            levels=tuple(
                Level(level=float(i + 1), right=right - lost + gained, lost=lost, gained=gained)
                for i in range(2)
                for lost, gained in [(draw(st.integers(0, right)), draw(st.integers(0, 100 - right)))]
            ),
        )
        for name in ("rotation", "blur")
    ]
    fonts = [FontAnswers(name=f"Font {i}", wrong=tuple(draw(st.sets(st.sampled_from("0123456789"))))) for i in range(3)]
    mean = sum(level.right for one in kinds for level in one.levels) / 400
    return Shift(
        trial=trial,
        arm=arm,
        dataset="mnist",
        part=part,  # type: ignore[arg-type]
        images=100,
        right=right,
        corruptions=tuple(kinds),
        interval=(mean / 2, (1 + mean) / 2),
        fonts=tuple(fonts) if draw(st.booleans()) else (),
        classes=10,
    )


@given(found())
def test_figures_follow_from_the_counts(one: Shift) -> None:
    accuracies = [one.accuracy(level) for kind in one.corruptions for level in kind.levels]
    assert one.mean == pytest.approx(sum(figure.value for figure in accuracies) / 4)
    kind, level = one.worst
    assert one.accuracy(level).value == min(figure.value for figure in accuracies) and level in kind.levels
    drop = one.drop(level)
    assert drop.value == pytest.approx(one.clean.value - one.accuracy(level).value)
    assert drop.low - 1e-9 <= drop.value <= drop.high + 1e-9
    bounds = stats.binomtest(level.right, 100).proportion_ci(method="wilson")
    assert one.accuracy(level)[1:] == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    if one.fonts:
        wrong = sum(len(font.wrong) for font in one.fonts)
        assert one.font_accuracy is not None and one.font_accuracy.value == pytest.approx(1 - wrong / 30)
    told = one.as_dict()
    assert told["corruptions"][1]["levels"][0]["accuracy"]["value"] == accuracies[2].value
    assert Shift.model_validate_json(one.model_dump_json()) == one


@given(st.lists(found(), min_size=1, max_size=3), found(part="test"))
def test_the_last_line_of_a_trial_and_part_counts(
    tmp_path_factory: pytest.TempPathFactory, many: list[Shift], on_test: Shift
) -> None:
    study = StudyDir(tmp_path_factory.mktemp("shift"), "s")
    study.path.mkdir()
    assert shifts(study) == {}
    for one in many:
        write_shift(study, one)
    write_shift(study, on_test)
    with open(study.path / SHIFT_FILE, "ab") as file:
        file.write(b'{"trial": "0003-0123abcd", "part": "valid\n\xff\n[]\n')
    assert shifts(study) == {many[-1].trial: many[-1]}
    assert shifts(study, "test") == {on_test.trial: on_test}


@given(found(), st.integers(1, 5))
def test_counts_that_do_not_add_up_are_refused(one: Shift, more: int) -> None:
    told = one.model_dump(mode="json")
    told["corruptions"][0]["levels"][0]["right"] += more
    with pytest.raises(ValidationError, match="right answers"):
        Shift.model_validate(told, strict=False)


@given(found(), found(trial="0004-0123abcd", arm="cnn"))
def test_the_table_shows_one_model_with_intervals_and_several_beside_each_other(one: Shift, two: Shift) -> None:
    alone, both = as_text([one]), as_text([one, two])
    assert "95 %" in alone and "drop, points" in alone and "net 0003" in alone
    head = next(line for line in both.splitlines() if line.startswith("corruption"))
    assert head.split()[2:] == ["net", "0003", "cnn", "0004"]
    for text in (alone, both):
        rows = [line for line in text.splitlines() if line.startswith(("rotation", "blur", "none"))]
        assert len(rows) == 5 and "1 degrees" in rows[1]
        assert f"{100 * one.clean.value:.2f}%" in rows[0]


@given(found(), found(arm="cnn"))
def test_only_what_was_measured_alike_is_compared(one: Shift, two: Shift) -> None:
    fewer = two.model_copy(update={"images": 200})
    assert list(alike({"a": one, "b": fewer, "c": two})) == ["a", "c"]
    assert alike({}) == {}
