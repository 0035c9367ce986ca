"""Bodies of any content become pictures, or are refused with a code."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiohttp")

from suite.serving.bodies import Given, from_form, from_json
from suite.serving.limits import Limits, Refused
from suite.serving.worker import ANSWER, Answered, answers_of

LIMITS = Limits(pixels=64, queue=4)

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))

TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["image", "pixels", "name"]), inner, max_size=3)
    ),
)

BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}

PIECES = st.sampled_from(
    [b"--x", b"--x--", b"\r\n", b"\n", b"Content-Disposition: form-data", b'; filename="a"', b": "]
)


def check(found: list[Given]) -> None:
    assert 1 <= len(found) <= LIMITS.queue
    for one in found:
        assert one.name is None or len(one.name) <= 200
        if isinstance(one.content, np.ndarray):
            assert one.content.dtype == np.uint8 and one.content.ndim in (2, 3)
            assert 0 < one.content.shape[0] * one.content.shape[1] <= LIMITS.pixels


@given(body=TREES.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=40))
def test_any_json_is_pictures_or_refused(body: bytes) -> None:
    try:
        found, many = from_json(body, LIMITS)
    except Refused as refused:
        assert refused.status in (400, 413) and refused.reason
    else:
        check(found)
        assert many or len(found) == 1


@given(parts=st.lists(PIECES | st.binary(max_size=12), max_size=30))
def test_any_form_is_pictures_or_refused(parts: list[bytes]) -> None:
    try:
        check(asyncio.run(from_form(BOUNDARY, b"".join(parts), LIMITS)))
    except Refused as refused:
        assert refused.status in (400, 413) and refused.reason


@given(answers=st.lists(st.tuples(st.integers(100, 599), st.binary(max_size=20))))
def test_answers_of_a_worker_come_whole(answers: list[tuple[int, bytes]]) -> None:
    written = [Answered(*one) for one in answers]
    reply = b"".join(ANSWER.pack(one.status, len(one.body)) + one.body for one in written)
    assert list(answers_of(reply)) == written
