import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.ranking.leaderboard import Row
from tui.model.filters import (
    COMPARISONS,
    PROPERTIES,
    TEXT_FIELDS,
    UNITS,
    Filter,
    FilterError,
    Subject,
    Term,
    completed,
    number,
    parse,
    vocabulary,
)

ROW = Row(
    study="mnist",
    trial="0003-abcdef12",
    number=3,
    arm="lite0-head",
    backbone="timm:tf_efficientnet_lite0",
    strategy="head",
    state="finished",
    accuracy=0.991,
    flops=8_100_000,
    memory=2**29,
    seconds=90.0,
    tuned={"lr": 0.01, "strategy.head.hidden": 64, "optimizer": "adamw", "nesterov": True},
)


def holds(text: str, row: Row = ROW, dataset: str = "mnist", properties: tuple[str, ...] = ()) -> bool:
    return parse(text).matches(Subject(row, dataset, properties))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acc>.99",
        "acc>99%",
        "flops<10M",
        "flops<1e7 acc>=.991",
        "arm:head",
        "arm:full|head",
        "state:FIN",
        "state=finished",
        "-state:running",
        "lr<=0.01",
        "lr=.01",
        "hidden>60",
        "optimizer=adamw",
        "optimizer:adam",
        "nesterov=true",
        "mem<1GiB",
        "time<2min",
        "trial:0003",
        "n=3",
        "data:mnist",
        "lite0",
        '"efficientnet"',
        "-fashion",
        "-energy_source:nvml -reason:memory",
    ],
)
def test_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    ["acc>.995", "flops>10M", "arm:full", "state:running", "-arm:head", "energy<1e9", "is:pareto", "xyz", "lr>1"],
)
def test_does_not_hold(text: str) -> None:
    assert not holds(text)


def test_an_unknown_value_matches_no_comparison_but_its_negation() -> None:
    assert not holds("energy>0") and not holds("energy<1") and holds("-energy>0")
    assert not holds("accuracy<1", ROW._replace(accuracy=float("nan")))


def test_properties() -> None:
    assert holds("is:pareto -is:marked", properties=("pareto",))
    assert holds("is:live", ROW._replace(state="stale")) and not holds("is:live")


@pytest.mark.parametrize("text", ["acc>", "acc>high", "is:nice", "arm>3", "acc>1parsec", "rank<3", '""', "flops:"])
def test_errors_are_explained(text: str) -> None:
    with pytest.raises(FilterError, match=r"\w"):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        found = parse(text)
    except FilterError:
        return
    found.matches(Subject(ROW))
    assert parse(str(found)) == found


names = st.sampled_from(["accuracy", "flops", "lr", "energy", "momentum"])
values = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
terms = st.one_of(
    st.builds(Term, names, st.sampled_from(sorted(COMPARISONS)), values, st.booleans()),
    st.builds(Term, st.sampled_from(sorted(TEXT_FIELDS | {"optimizer"})), st.just(":"), words, st.booleans()),
    st.builds(Term, st.just("is"), st.just(":"), st.sampled_from(PROPERTIES), st.booleans()),
    st.builds(Term, st.just(""), st.just(":"), words, st.booleans()),
)


@given(st.lists(terms, max_size=4))
def test_a_filter_as_text_is_parsed_back(wanted: list[Term]) -> None:
    found = Filter(tuple(wanted))
    assert parse(str(found)) == found


@given(values.filter(lambda v: abs(v) < 1e200), st.sampled_from(sorted(UNITS)))
def test_numbers_take_units(value: float, unit: str) -> None:
    expected = value / 100 if unit == "%" else value * UNITS[unit]
    assert number(f"{value!r}{unit}") == expected


WORDS = vocabulary(
    [Subject(ROW, "mnist"), Subject(ROW._replace(study="my study", state="pruned", arm="cnn"), "fashion")]
)


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("a", "acc>"),
        ("-st", "-state:"),
        ("acc>.9 fl", "acc>.9 flops<"),
        ("opt", "optimizer="),
        ("hid", "hidden="),
        ("params", "params<"),
        ("arm:", "arm:cnn"),
        ("-arm:LI", "-arm:LIte0-head"),
        ("arm:cnn|li", "arm:cnn|lite0-head"),
        ("state=p", "state=pruned"),
        ("data:f", "data:fashion"),
        ("is:p", "is:pareto"),
        ('study:"m', 'study:"mnist"'),
        ('study:"my', 'study:"my study"'),
        *[(text, None) for text in ("", "arm:cnn ", "arm:lite0-head", "acc>", "acc>.9", "zzz", "F", "nosuch:a")],
    ],
)
def test_the_last_term_is_completed(typed: str, whole: str | None) -> None:
    assert completed(typed, WORDS) == whole


@given(
    st.text(max_size=20) | st.sampled_from(sorted(WORDS)).flatmap(lambda w: st.sampled_from([w[:n] for n in (1, 2)]))
)
def test_a_completion_only_adds_and_ends(text: str) -> None:
    """Taking completion after completion comes to an end, with a filter that can be read but for a missing value."""
    for _ in range(4):
        whole = completed(text, WORDS)
        if whole is None:
            return
        assert whole.startswith(text) and len(whole) > len(text)
        text = whole
    pytest.fail(text)
