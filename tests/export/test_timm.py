"""Some of timm's architectures a day, through all that the suite does with them; `make test-timm` runs all."""

from __future__ import annotations

import datetime
import json
import os
import random

import pytest
import timm

from tests.timm_contract import DOCS, LIST, Outcome, listed, names, outcome, page

KNOWN = listed()

# Which ones: by date, or by a seed that repeats them; all with MNIST_SUITE_TIMM=all.
SEED = os.environ.get("MNIST_SUITE_TIMM", "") or str(datetime.date.today())

SMALL = 6_000_000  # parameters of those that are drawn


# timm builds the first otherwise for weights, and the second has 5-dimensional parameters.
ALWAYS = ["fbnetc_100", "lambda_resnet26t"]


def chosen() -> list[str]:
    if SEED == "all":
        return names()
    small = [one.name for one in KNOWN.values() if one.state == "works" and one.parameters < SMALL]
    refused = [one.name for one in KNOWN.values() if one.state == "refused"]
    draw = random.Random(SEED)
    return [*dict.fromkeys([*ALWAYS, *draw.sample(small, 2), *draw.sample(refused, min(1, len(refused)))])]


@pytest.mark.slow
@pytest.mark.parametrize("name", chosen())
def test_an_architecture_works_or_is_refused_as_the_documentation_says(name: str) -> None:
    """Trained for a step, given heads, exported, and read back by plain timm with the same logits."""
    found, known = outcome(name), KNOWN.get(name)
    told = f"MNIST_SUITE_TIMM={SEED} repeats this"
    assert found.state != "broken", f"{found.reason}; {told}"
    if known is not None and timm.__version__ == VERSION:
        assert facts(found) == facts(known), told


def facts(one: Outcome) -> tuple[object, ...]:
    return one.state, one.channels, one.size, one.parameters, [limit.partition(" (")[0] for limit in one.limits]


VERSION = json.loads(LIST.read_text())["timm"]


def test_the_documentation_lists_what_the_contract_has_found() -> None:
    """`python -m tests.timm_contract --write` writes both files."""
    assert DOCS.read_text() == page(KNOWN, VERSION)
    assert not any(one.state == "broken" for one in KNOWN.values())
    if timm.__version__ == VERSION:
        assert KNOWN.keys() <= set(timm.list_models())


def test_every_old_name_of_timms_is_refused_with_one_that_exists() -> None:
    from suite.errors import InputError
    from suite.models import backbones

    for name in timm.models.get_deprecated_models():
        with pytest.raises(InputError, match="is an old name") as refused:
            backbones.exists(f"timm:{name}")
        today = str(refused.value).partition("calls this model ")[2].partition(" today")[0]
        backbones.exists(today)
