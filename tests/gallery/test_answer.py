"""The sentence at the top of a page: which arm it names, and how sure it says that it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from suite.gallery.answer import answer
from suite.gallery.figures import Figure, Figures, as_csv, read
from suite.gallery.page import page


def made(*found: Figure) -> Figures:
    return Figures("made", found)


def arm(name: str, test: float, validation: float, labels: float = 1.0, flops: float = 1e9) -> list[Figure]:
    return [
        Figure(name, "test", test, test - 0.001, test + 0.001, 5),
        Figure(name, "validation", validation, n=5),
        Figure(name, "labels", labels),
        Figure(name, "FLOPs of training", flops),
    ]


def test_validation_decides_which_arm_is_named() -> None:
    text = answer(made(*arm("best-on-test", 0.99, 0.97), *arm("best-on-validation", 0.98, 0.98)))
    assert "best-on-validation is first" in text
    assert "98.00 % (97.90 to 98.10) over 5 seeds" in text


def test_a_difference_is_called_one_only_where_its_interval_excludes_zero() -> None:
    arms = [*arm("a", 0.99, 0.99, flops=3e9), *arm("b", 0.98, 0.98)]
    for low, high, chance in ((0.005, 0.015, False), (-0.001, 0.021, True), (-0.02, -0.01, False)):
        forward = answer(made(*arms, Figure("a - b", "difference", 0.01, low, high, 5)))
        turned = answer(made(*arms, Figure("b - a", "difference", -0.01, -high, -low, 5)))
        assert forward == turned
        assert "against b +1.00 points" in turned
        assert ("which may be chance" in turned) == chance
    assert "for 3 times the FLOPs of training" in turned


def test_an_arm_that_no_seed_changes_has_no_number_of_seeds() -> None:
    text = answer(made(Figure("ridge", "test", 0.9, 0.89, 0.91, 1), Figure("ridge", "validation", 0.9, n=1)))
    assert "90.00 % (89.00 to 91.00) on test" in text


def test_shares_of_labels_have_a_sentence_each() -> None:
    arms = [
        *arm("scratch-1", 0.7, 0.7, 0.01),
        *arm("full-1", 0.8, 0.8, 0.01),
        *arm("scratch-100", 0.92, 0.92),
        *arm("full-100", 0.91, 0.91),
    ]
    text = answer(made(*arms, Figure("full-1 - scratch-1", "difference", 0.1, 0.05, 0.15, 5)))
    assert "With 1 % of the labels full-1 is first" in text and "against scratch-1 +10.00 points" in text
    assert "With 100 % of the labels scratch-100 is first" in text


VALUES = st.one_of(st.none(), st.floats(-1e15, 1e15, allow_nan=False))
WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@given(
    st.lists(
        st.builds(Figure, WORDS, WORDS, VALUES, VALUES, VALUES, n=st.one_of(st.none(), st.integers(1, 99)), text=WORDS),
        max_size=6,
    )
)
def test_a_table_is_read_as_it_was_written(tmp_path_factory: object, found: list[Figure]) -> None:
    path = tmp_path_factory.mktemp("t") / "made.csv"  # pyright: ignore[reportAttributeAccessIssue]
    found = [*arm("one", 0.9, 0.9), *found]
    path.write_text(as_csv(made(*found)))
    again = read(path)
    assert as_csv(again) == path.read_text()
    assert [(f.about, f.name, f.text) for f in again] == [(f.about, f.name, f.text) for f in made(*found)]
    assert page(again).endswith("\n")
