"""A trained model made smaller in every way: what the trials record, and that their models are found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.evaluation import final
from suite.evaluation.rerun import rerun
from suite.execution.plan import pretrainings_of
from suite.execution.stop import Stop
from suite.execution.weights import teacher_of, weights_of
from suite.export.loading import load
from suite.export.publish import export
from suite.models.assembly import load_trained
from suite.models.compression import can_prune
from suite.models.preprocessing import evaluation_preparer
from suite.ranking.leaderboard import default_columns, row
from suite.spec import Arm, Experiment, Pretraining, Recipe
from suite.spec.compression import compressions
from suite.store.study import StudyDir
from suite.store.trial import TrialState
from suite.training.evaluation import Examples, Scores, evaluate

LIMIT = 300
CPU = torch.device("cpu")

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(not can_prune(), reason="Torch-Pruning is not installed")

Compressed = tuple[StudyDir, TrialState, dict[str, TrialState]]


@pytest.fixture(scope="module")
def compressed(search: Callable[[Experiment, Path], StudyDir], tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    """A study of compressions of a `net`, its parent, and its trials by arm."""
    recipe = Recipe(epochs=2, batch_size=50, lr=0.01)
    arms = compressions(Arm(backbone="net"), "experiment", keep=(0.3,), into=("lean-xs",))
    arms = {name: arm.model_copy(update={"recipe": recipe}) for name, arm in arms.items()}
    experiment = Experiment(
        name="smaller",
        question="?",
        dataset="mnist",
        pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=2, lr=0.05)),
        arms=arms,
        trials=len(arms),
        pruning=None,
        limit=LIMIT,
    )
    results = tmp_path_factory.mktemp("compressed")
    study = search(experiment, results)
    (parent,) = StudyDir(results, pretrainings_of(experiment)[0].name).states()
    return study, parent, {state.trial.arm: state for state in study.states()}


def scores(study: StudyDir, state: TrialState) -> Scores:
    """Of the trial's model on validation, loaded from its files."""
    expects = state.trial.preprocess
    assert expects is not None
    model = load_trained(study.trial(state.id), state.trial, expects, 10, study.path.parent).model
    part = search_splits("mnist", limit=LIMIT).validation
    examples = Examples(torch.from_numpy(part.images), torch.from_numpy(part.labels))
    return evaluate(model, examples, evaluation_preparer(expects, CPU), CPU, torch.float32)


@pytest.mark.slow
def test_every_way_gives_a_smaller_model_with_its_parent_and_figures(compressed: Compressed) -> None:
    study, parent, states = compressed
    assert list(states) == ["prune-30", "low-rank-25", "distill-lean-xs", "int8"]
    before = parent.record.cost
    rows = {arm: row(study.name, state) for arm, state in states.items()}
    for arm, state in states.items():
        record = state.record
        assert record is not None and record.state == "finished", (arm, record and record.reason)
        assert scores(study, state).accuracy == pytest.approx(record.accuracy, abs=1e-9)
        assert rows[arm].parent == f"{parent.trial.study}/{parent.id}"
        assert rows[arm].low < record.accuracy < rows[arm].high
        assert record.cost.file_bytes == study.trial(state.id).best.stat().st_size
    assert {"parent", "file"} <= set(default_columns(rows.values()))
    assert rows["prune-30"].params <= 0.3 * before.parameters and rows["prune-30"].flops < 0.5 * before.forward_flops
    assert rows["low-rank-25"].params < before.parameters
    assert rows["int8"].accuracy == pytest.approx(parent.record.accuracy, abs=0.02)
    assert rows["int8"].train_flops == 0 and rows["int8"].file < rows["low-rank-25"].params * 4 + 60_000


@pytest.mark.slow
def test_compressed_models_are_exported_repeated_and_compressed_again(compressed: Compressed, tmp_path: Path) -> None:
    study, _, states = compressed
    results = study.path.parent
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for arm in ("prune-30", "low-rank-25"):
        state = states[arm]
        export(results, f"smaller/{state.id}", tmp_path / arm)
        trained = load_trained(study.trial(state.id), state.trial, state.trial.preprocess, 10, results).model
        with torch.no_grad():
            assert torch.equal(load(tmp_path / arm)(images), trained(images))
        assert weights_of(f"smaller/{state.id}", results).reshaped
        assert teacher_of(f"smaller/{state.id}", results).weights.reshaped
        assert rerun(results, f"smaller/{state.id}", stop=Stop())["identical"]
    with pytest.raises(InputError, match="--format int8"):
        export(results, f"smaller/{states['int8'].id}", tmp_path / "int8")
    with pytest.raises(InputError, match="strategy int8"):
        weights_of(f"smaller/{states['int8'].id}", results)


@pytest.mark.slow
def test_every_way_has_a_final_evaluation(compressed: Compressed) -> None:
    """Also with views, of models that are no PyTorch modules with a classifier."""
    study, _, states = compressed
    plan = final.plan(study.path.parent, study, top=1, seeds=2, place="cpu", views=("shift",))
    for _ in final.train(plan, stop=Stop()):
        pass
    found = {row.arm: row for row in final.judge(plan).finalists}
    assert found.keys() == states.keys()
    assert all(len(row.accuracies) == 2 and row.viewed is not None for row in found.values())


@pytest.mark.slow
def test_what_an_experiment_pretrains_is_compressed_with_itself_as_the_only_teacher(run: Any) -> None:
    done = run("compress", "ensembles", "--keep", "0.5", "--into", "", "--dry-run", "--json")
    assert done.code == 0, done.err
    planned = Experiment.model_validate_json(done.out)
    assert {arm.teacher for arm in planned.arms.values()} <= {"experiment", None}
    assert len(pretrainings_of(planned)) == 1
