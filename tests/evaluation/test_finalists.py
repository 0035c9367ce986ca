"""Finalists: which recipes are trained again, and what their trainings say."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.evaluation import final, finalists
from suite.evaluation.reseeded import fresh_seeds, reseeded
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.ranking.gains import accuracy_words, as_text, board, gain_words, study_gains
from suite.ranking.statistics import wilson
from suite.ranking.study_costs import study_costs
from suite.spec import Arm, Record, Trial
from suite.spec.seeds import mix
from suite.store.files import write_model
from suite.store.finalists import best_of, confirmed, recipe_of, winner
from suite.store.study import StudyDir, finalists_of, find_trial, repeats
from suite.store.trial import TrialState

ARMS = {"a": Arm(backbone="net"), "b": Arm(backbone="net")}
DEFAULT = ARMS["a"].recipe.lr


def ended(trial: Trial, state: str, correct: int, images: int = 300) -> TrialState:
    found = TrialState(trial.id, trial)
    record = {"trial": trial.id, "arm": trial.arm, "attempt": "x", "state": state, "images": images}
    found.settle(Record.model_validate({**record, "accuracy": correct / images if state != "failed" else None}))
    return found


@pytest.fixture(scope="module")
def search(make_trial: Callable[..., Trial]) -> Callable[..., list[TrialState]]:
    """The states of a search from (arm, lr, state, right answers of 300) of every trial."""

    def made(outcomes: Sequence[tuple[str, float, str, int]]) -> list[TrialState]:
        trials = [make_trial(arm=arm, number=i, params={"lr": lr}) for i, (arm, lr, _, _) in enumerate(outcomes)]
        return [ended(trial, state, n) for trial, (_, _, state, n) in zip(trials, outcomes)]

    return made


outcomes = st.lists(
    st.tuples(
        st.sampled_from([*ARMS]),
        st.sampled_from([DEFAULT, 0.01, 0.02, 0.03, 0.2]),
        st.sampled_from(["finished", "finished", "pruned", "failed"]),
        st.integers(250, 300),
    ),
    max_size=20,
)


@given(outcomes=outcomes, most=st.integers(1, 5), order=st.randoms())
def test_finalists_are_close_to_the_best_and_the_default_is_among_them(
    search: Any, outcomes: Any, most: int, order: Any
) -> None:
    states = search(outcomes)
    chosen = finalists.finalists(states, ARMS, most)
    shuffled = order.sample(states, len(states))
    assert [s.id for s in finalists.finalists(shuffled, ARMS, most)] == [s.id for s in chosen]
    assert len({recipe_of(s.trial) for s in chosen}) == len(chosen)  # no recipe twice
    for name in ARMS:
        own, picked = ([s for s in group if s.trial.arm == name] for group in (states, chosen))
        best = best_of(own)
        if best is None:
            assert not picked
            continue
        assert best in picked
        others = [s for s in picked if s.trial.params["lr"] != DEFAULT]
        lowest = wilson(best.best or 0.0, 300, z=1.0)[0]
        assert all(s.state == "finished" and (s.best or 0.0) >= lowest for s in others)
        assert len(others) <= most and len(picked) <= most + 1
        left = {recipe_of(s.trial) for s in own if s.state == "finished" and (s.best or 0.0) >= lowest}
        assert len(picked) >= min(most, len(left))
        assert any(s.trial.params["lr"] == DEFAULT for s in picked) == any(s.trial.params["lr"] == DEFAULT for s in own)


def rerun_of(states: Sequence[TrialState], lrs: dict[float, list[int]]) -> list[TrialState]:
    """Trainings of recipes of arm a with right answers under fresh seeds; a negative number is a failure."""
    found: list[TrialState] = []
    for lr, answers in lrs.items():
        trial = next(s.trial for s in states if s.trial.params["lr"] == lr)
        for repeat, n in zip(reseeded(trial, fresh_seeds(2000, len(answers)), place="cpu", threads=1), answers):
            found.append(ended(repeat, "finished" if n >= 0 else "failed", n))
    return found


SEARCHED = [("a", DEFAULT, "finished", 280), ("a", 0.1234, "finished", 290), ("a", 0.02, "finished", 289)]


def test_the_winner_is_the_best_over_fresh_seeds(search: Any) -> None:
    states = search(SEARCHED)
    runs = rerun_of(states, {DEFAULT: [281, 282], 0.1234: [283, 283], 0.02: [286, 288]})
    assert winner(states, []) is states[1]
    assert winner(states, runs) is states[2]
    (found,) = confirmed(states, runs).values()
    assert [one.state for one in found] == [states[2], states[1], states[0]]
    assert found[0].mean == pytest.approx(287 / 300)


@pytest.mark.parametrize(
    ("more", "runs", "wins"),
    [
        ([], {DEFAULT: [281], 0.1234: [270], 0.02: [-1]}, 0),  # a recipe that failed once does not win
        ([("a", 0.03, "finished", 299)], {DEFAULT: [281], 0.1234: [270], 0.02: [288]}, 3),  # found after the finalists
        ([("b", 0.03, "finished", 270)], {DEFAULT: [281], 0.1234: [270], 0.02: [288]}, 1),  # an arm without finalists
        ([("b", 0.03, "failed", 0)], {DEFAULT: [281], 0.1234: [270], 0.02: [288]}, 2),  # it has nothing to win with
        ([], {DEFAULT: [281], 0.02: [288]}, 1),  # the best has no training: these are of an earlier search
    ],
)
def test_finalists_decide_only_where_they_say_it_all(search: Any, more: Any, runs: Any, wins: int) -> None:
    states = search([*SEARCHED, *more])
    assert winner(states, rerun_of(states, runs)) is states[wins]


def test_a_pruned_default_is_compared_with_and_never_wins(search: Any) -> None:
    states = search([("a", DEFAULT, "pruned", 100), ("a", 0.02, "finished", 280)])
    assert finalists.finalists(states, ARMS, 1) == [states[1], states[0]]
    assert winner(states, rerun_of(states, {DEFAULT: [299], 0.02: [280]})) is states[1]


def test_a_repeat_differs_from_its_trial_by_its_seed_alone(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial(rungs=(0.5, 1.0), caps={"params": 5})
    seeds = fresh_seeds(finalists.FRESH_SEED, 3)
    apart = [*fresh_seeds(final.FRESH_SEED, 100), *(mix(seed, 7) % 2**31 for seed in range(1000))]
    assert len({*seeds, *apart}) == len(seeds) + len(apart)
    for seed, repeat in zip(seeds, reseeded(trial, seeds, place="cpu", threads=2), strict=True):
        changes = {"seed": seed, "rungs": (), "caps": None, "device": "cpu", "threads": 2}
        expected = trial.model_copy(update=changes)
        assert all(getattr(repeat, key) == getattr(expected, key) for key in Trial.model_fields if key != "stages")
        assert not getattr(repeat, "stages", ())


# --- with real trainings -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the small study, whose finalists are trained with a stop in between."""
    results = tmp_path_factory.mktemp("finalists") / "results"
    shutil.copytree(small.results, results)
    study, stop, options = StudyDir(results, "small"), Stop(), Options(device="cpu", command="the finalists")
    file = study.study()
    assert file is not None
    assert list(finalists.train(study, results, options, stop=stop)) == []  # the experiment asks for none
    experiment = file.experiment.model_copy(update={"finalists": 1})
    write_model(study.path / "study.json", file.model_copy(update={"experiment": experiment}))
    for status in finalists.train(study, results, options, stop=stop):
        if status.finished == 2:
            stop.reason = "SIGTERM"
    interrupted = (repeats(study), find_trial(study, None).id, {s.id: s.record for s in finalists_of(study).states()})
    *_, last = finalists.train(study, results, options, stop=Stop())
    return SimpleNamespace(results=results, study=study, interrupted=interrupted, last=last, small=small)


def test_they_are_trained_once_each_and_in_full(trained: Any) -> None:
    states, runs = trained.study.states(), repeats(trained.study)
    chosen = finalists.finalists(states, trained.study.study().experiment.arms, 1)
    assert (trained.last.state, trained.last.finished) == ("done", 3 * len(chosen))
    assert sorted((*recipe_of(s.trial), s.trial.seed) for s in runs) == sorted(
        (*recipe_of(s.trial), seed) for s in chosen for seed in fresh_seeds(finalists.FRESH_SEED, 3)
    )
    assert all(s.state == "finished" and s.record.epoch and len(s.record.curve) >= 3 for s in runs)
    before, best, records = trained.interrupted
    assert before == [] and best == find_trial(trained.small.study, None).id  # an interrupted phase decides nothing
    done = {trial_id: record for trial_id, record in records.items() if record}
    assert len(done) == 2
    assert all(finalists_of(trained.study).trial(trial_id).record() == record for trial_id, record in done.items())


def test_what_was_found_is_said_with_its_uncertainty_and_its_cost(trained: Any) -> None:
    study, states = trained.study, trained.study.states()
    found, before = study_gains(study, states), study_gains(trained.small.study, states)
    assert [one.arm for one in found] == [one.arm for one in before] == ["net-scratch", "net-head"]
    for now, then in zip(found, before):
        runs = [s for s in repeats(study) if s.trial.arm == now.arm]
        recipe = recipe_of(next(s.trial for s in states if s.id == now.winner))
        mine = [s.best for s in runs if recipe_of(s.trial) == recipe]
        assert now.fresh is not None and now.fresh.mean == pytest.approx(sum(mine) / 3)
        assert "mean of 3 fresh seeds (95 % " in accuracy_words(now)
        assert then.fresh is None and "optimistic" in accuracy_words(then)
        assert now.trials == then.trials == 3
        assert now.search == then.search
        assert (now.finalists.trials, then.finalists.trials) == (len(runs), 0)
        assert now.finalists.flops == sum(s.record.cost.training_flops + s.record.cost.setup_flops for s in runs)
    assert "--finalists 3" in as_text(before, "small") and "--finalists" not in as_text(found, "small")
    assert find_trial(study, None).id in {one.winner for one in found}
    marks = {r.trial: r.best for r in board(study) if r.best}
    assert marks == {one.winner: one.spread for one in found}
    assert all("best of 3, " in mark and mark.endswith("over 3 fresh seeds") for mark in marks.values())
    costs = study_costs(trained.results, study)
    assert costs.finalists.trials == sum(one.finalists.trials for one in found)
    assert costs.search.trials == 6 and costs.final.trials == 4


def test_the_default_recipe_is_compared_in_pairs(search: Any, tmp_path: Path, small: Any) -> None:
    from suite.ranking.gains import _gain
    from suite.ranking.study_costs import Total

    states = search(SEARCHED)
    runs = rerun_of(states, {DEFAULT: [280, 282, 281], 0.1234: [283, 285, 284], 0.02: [286, 288, 287]})
    one = _gain(states, "a", ARMS["a"], confirmed(states, runs)["a"], Total())
    assert one is not None and one.over_default is not None
    assert one.over_default.value == pytest.approx(6 / 300)
    assert one.over_default.low == pytest.approx(6 / 300)  # the same in each pair
    assert gain_words(one).startswith("+2.00 points over the default recipe 0000 (95 % +2.00 to +2.00")
    searched = _gain(states, "a", ARMS["a"], [], Total())
    assert searched is not None and searched.over_default is not None
    assert searched.over_default.value == pytest.approx(10 / 300)
    low, high = searched.over_default.low, searched.over_default.high
    assert low is not None and high is not None and low < 10 / 300 < high


def test_the_final_evaluation_prefers_the_winner(search: Any) -> None:
    states = search(SEARCHED)
    runs = rerun_of(states, {DEFAULT: [281, 282], 0.1234: [283, 283], 0.02: [286, 288]})
    assert final.finalists(states, 1) == [states[1]]
    assert final.finalists(states, 2, runs) == [states[2], states[1]]
