import shutil
from pathlib import Path

import pytest

from suite.spec import Int8
from suite.store.study import find_trial

pytest.importorskip("textual")

from tui.testing.synthetic import write_study, write_trial


def test_the_best_trial_has_a_model_to_go_on_from_where_one_has(tmp_path: Path) -> None:
    study = write_study(tmp_path, "mnist", ["finished"] * 3, running=False)
    best = find_trial(study, None)
    assert best.best == max(state.best for state in study.states())
    shutil.rmtree(study.trial(best.id).path)
    write_trial(study, best.trial.number, "finished", trial=best.trial.model_copy(update={"strategy": Int8()}))
    accuracies = {state.trial.strategy.kind == "int8": state.best for state in study.states()}
    assert accuracies[True] > accuracies[False]
    second = find_trial(study, None)
    assert second.trial.strategy.kind != "int8"
    for state in study.states():
        if state.trial.strategy.kind != "int8":
            shutil.rmtree(study.trial(state.id).path)
    assert find_trial(study, None).trial.strategy.kind == "int8"
