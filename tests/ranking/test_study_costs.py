"""What studies cost, and caps on the cost of a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.execution.replay import replay
from suite.execution.stop import Stop
from suite.ranking.study_costs import study_costs, total
from suite.spec import Caps
from suite.store.study import StudyDir


def test_search_final_training_and_pretraining_add_up(small: Any) -> None:
    found = study_costs(small.results, small.study)
    records = [s.record for s in small.study.states()]
    assert found.search.trials == 6
    assert found.search.wall_seconds == pytest.approx(sum(r.cost.wall_seconds for r in records))
    for parts in (found.by_state, found.by_arm):
        assert sum(p.trials for p in parts.values()) == 6
        assert sum(p.flops for p in parts.values()) == pytest.approx(found.search.flops)
    assert found.by_state["pruned"].flops > 0  # pruned trials cost something too
    assert found.final.trials == 4
    (share,) = found.pretraining
    assert share.runs == share.runs_here == 5  # three trials and two final runs of the head
    assert share.share.flops == pytest.approx(share.cost.flops)


def test_pretraining_is_shared_by_every_study_that_uses_it(
    small: Any, tmp_path: Path, made: Callable[..., Any], search: Callable[..., StudyDir]
) -> None:
    import shutil

    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    shutil.copytree(results / "small", results / "twin")
    (share,) = study_costs(results, StudyDir(results, "small")).pretraining
    assert (share.runs, share.runs_here) == (10, 5)
    assert share.share.wall_seconds == pytest.approx(share.cost.wall_seconds / 2)


def test_a_trial_without_a_cost_is_counted_as_such(small: Any) -> None:
    state = small.study.states()[0]
    state.record = state.record.model_copy(update={"cost": None, "state": "failed"})
    found = total([state])
    assert (found.trials, found.unknown, found.wall_seconds, found.energy_joules) == (1, 1, 0.0, None)


def test_a_model_above_a_cap_is_pruned_before_training(
    tmp_path: Path, made: Callable[..., Any], search: Callable[..., StudyDir]
) -> None:
    study = search(made(trials=2, caps=Caps(flops=500_000)), tmp_path)  # the net needs 961,000
    assert [s.state for s in study.states()] == ["pruned", "pruned"]
    for state in study.states():
        assert state.record is not None
        assert "961,000 FLOPs" in (state.reason or "")
        assert state.record.accuracy is None
        assert state.record.cost is not None
        assert (state.record.cost.training_flops, state.record.cost.forward_flops) == (0, 961_000)
    assert study.status().state == "done"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("head", "parameters", "flops", "trained"),
    [  # by hand, for 50 features and 10 classes; the net's own classifier is 510 parameters and 1000 FLOPs
        ({"kind": "mlp", "hidden": 64}, 50 * 64 + 64 + 64 * 10 + 10, 2 * (50 * 64 + 64 * 10), 3914),
        ({"kind": "ridge"}, 510, 1000, 510),
        ({"kind": "knn", "k": 3}, 0, 2 * 50 * 300, 0),  # every image is compared with 300
    ],
)
def test_cost_of_a_head(
    small: Any, tmp_path: Path, head: dict[str, Any], parameters: int, flops: int, trained: int
) -> None:
    trial = next(s.trial for s in small.study.states() if s.trial.arm == "net-head")
    recipe = {**trial.recipe.model_dump(), "epochs": 1}
    changed = type(trial).model_validate(
        {**trial.model_dump(), "strategy": {"kind": "head", "head": head}, "recipe": recipe, "rungs": ()}
    )
    for _ in replay([changed], StudyDir(tmp_path, "one"), small.results, stop=Stop()):
        pass
    record = StudyDir(tmp_path, "one").states()[0].record
    assert record is not None
    assert record.cost is not None
    assert record.cost.parameters == 21_840 - 510 + parameters
    assert record.cost.forward_flops == 961_000 - 1000 + flops
    assert record.cost.trainable == trained
