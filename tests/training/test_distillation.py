"""Learning from a teacher: the loss, the teacher's inputs, and trials that stop and go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.errors import InputError
from suite.execution.plan import pretrainings_of
from suite.execution.weights import teacher_of
from suite.models.assembly import check_weights
from suite.models.preprocessing import normalizer
from suite.models.teacher import load_teacher
from suite.ranking.study_costs import study_costs
from suite.spec import Arm, Distill, Experiment, Full, HeadOnly, Pretraining, Recipe
from suite.store.study import StudyDir, studies
from suite.training.targets import distilled

CPU = torch.device("cpu")
Search = Callable[[Experiment, Path], StudyDir]


@given(temperature=st.floats(0.5, 20), weight=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_the_loss_mixes_labels_and_teacher(temperature: float, weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores, answers = 3 * torch.randn(2, 8, 10, generator=generator)
    labels, asked = torch.tensor(2.0), Distill(temperature=temperature, weight=weight)
    probabilities = (answers / temperature).softmax(1)
    gap = probabilities * (probabilities.log() - (scores / temperature).log_softmax(1))
    expected = (1 - weight) * 2 + weight * temperature**2 * gap.sum(1).mean()
    torch.testing.assert_close(distilled(labels, scores, answers, asked), expected, rtol=1e-4, atol=1e-4)
    assert float(distilled(labels, answers, answers, asked)) == pytest.approx(2 * (1 - weight), abs=1e-4)


def test_a_teacher_sees_the_inputs_that_it_was_trained_on(small: object) -> None:
    results: Path = small.results  # type: ignore[attr-defined]
    study: StudyDir = small.study  # type: ignore[attr-defined]
    scratch = next(s for s in study.states() if s.state == "finished" and s.trial.arm == "net-scratch")
    found = teacher_of(f"small/{scratch.id}", results)
    own = found.preprocess
    pixels = torch.randint(0, 256, (4, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    expected = load_teacher(found, own, 10, results)(normalizer(own, CPU)(pixels.float()))
    torch.testing.assert_close(expected.exp().sum(1), torch.ones(4))
    other = own.model_copy(update={"mean": (0.5,), "std": (0.7,)})
    teacher = load_teacher(found, other, 10, results)
    torch.testing.assert_close(teacher(normalizer(other, CPU)(pixels.float())), expected, atol=1e-4, rtol=1e-4)
    larger = load_teacher(found, own.model_copy(update={"size": 56}), 10, results)
    doubled = pixels.float().repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert larger(normalizer(own, CPU)(doubled)).shape == (4, 10)
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training


def test_what_cannot_teach_is_refused(small: object, tmp_path: Path) -> None:
    results: Path = small.results  # type: ignore[attr-defined]
    study: StudyDir = small.study  # type: ignore[attr-defined]
    scratch = next(s for s in study.states() if s.state == "finished" and s.trial.arm == "net-scratch")
    head = next(s for s in study.states() if s.state == "finished" and s.trial.arm == "net-head")
    found = teacher_of(f"small/{scratch.id}", results)
    assert found.backbone == "net" and found.weights.sha256 == scratch.record.artifact_sha256
    expects = found.preprocess
    with pytest.raises(InputError, match="strategy head"):
        teacher_of(f"small/{head.id}", results)
    copied = tmp_path / "own.safetensors"
    copied.write_bytes((study.trial(scratch.id).path / "best.safetensors").read_bytes())
    with pytest.raises(InputError, match="cannot be a teacher"):
        teacher_of(str(copied), results)
    with pytest.raises(InputError, match="3 classes"):
        load_teacher(found, expects, 3, results)
    with pytest.raises(InputError, match="channel"):
        load_teacher(found, expects.model_copy(update={"channels": 3}), 10, results)
    with pytest.raises(ValueError, match="no images to look at"):
        Arm(backbone="net", strategy=HeadOnly(), weights="pretrained", teacher="small")
    with pytest.raises(ValueError, match="learns from the teacher 'experiment'"):
        arms = {"a": Arm(backbone="net", teacher="experiment", recipe=Recipe())}
        Experiment(name="e", question="?", dataset="mnist", arms=arms)


def test_several_teachers_answer_with_their_mean_probabilities(small: object) -> None:
    results: Path = small.results  # type: ignore[attr-defined]
    study: StudyDir = small.study  # type: ignore[attr-defined]
    (pretraining,) = (one for one in studies(results) if one.name.startswith("pretrain"))
    scratch = next(s for s in study.states() if s.state == "finished" and s.trial.arm == "net-scratch")
    names = [f"small/{scratch.id}", f"{pretraining.name}/{pretraining.states()[0].id}"]
    together = teacher_of(", ".join(names), results)
    places = [name.replace("/", "/trials/") for name in names]
    assert [one.weights.source for one in together.all] == [f"{place}/best.safetensors" for place in places]
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    each = [load_teacher(teacher_of(name, results), together.preprocess, 10, results)(x).softmax(1) for name in names]
    found = load_teacher(together, together.preprocess, 10, results)
    torch.testing.assert_close(found(x).softmax(1), torch.stack(each).mean(0), atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="nobody"):
        teacher_of(f"{names[0]},nobody", results)


def test_a_student_of_an_experiment_learns_from_every_pretrained_backbone(search: Search, tmp_path: Path) -> None:
    """And an arm with weights starts from the first. What the teachers cost counts."""
    recipe = Recipe(epochs=1, batch_size=32, lr=0.05)
    experiment = Experiment(
        name="taught",
        question="?",
        dataset="mnist",
        pretraining=Pretraining(dataset="mnist", backbone="net", recipe=recipe, also=("lean-s", "net")),
        arms={
            "student": Arm(backbone="lean-xs", teacher="experiment", recipe=recipe),
            "full": Arm(backbone="net", strategy=Full(), weights="experiment", recipe=recipe),
        },
        trials=2,
        pruning=None,
        limit=100,
    )
    states = {s.trial.arm: s for s in search(experiment, tmp_path).states()}
    assert [s.state for s in states.values()] == ["finished", "finished"]
    teacher, weights = states["student"].trial.teacher, states["full"].trial.weights
    assert teacher is not None and [one.backbone for one in teacher.all] == ["net", "lean-s"]
    assert weights == teacher.weights
    plans = pretrainings_of(experiment)
    costs = {one.weights: one for one in study_costs(tmp_path, StudyDir(tmp_path, "taught")).pretraining}
    assert {name.partition("/")[0]: one.runs_here for name, one in costs.items()} == {
        plans[0].name: 2,
        plans[1].name: 1,
    }
    assert all(one.cost is not None and one.cost.flops for one in costs.values())
    student = states["student"].trial
    check_weights(student, tmp_path)  # as before a final evaluation
    (tmp_path / teacher.others[0].weights.source).unlink()
    with pytest.raises(InputError, match=f"learns from the weights {plans[1].name}/trials"):
        check_weights(student, tmp_path)


def test_the_study_of_a_pretraining_keeps_its_name_where_backbones_are_added() -> None:
    first = Pretraining(dataset="mnist", backbone="net")
    arms = {"a": Arm(backbone="net", teacher="experiment")}
    alone, more = (
        pretrainings_of(Experiment(name="e", question="?", dataset="mnist", arms=arms, pretraining=plan))
        for plan in (first, first.model_copy(update={"also": ("cnn",)}))
    )
    assert [plan.name for plan in alone] == [more[0].name] != [more[1].name]
