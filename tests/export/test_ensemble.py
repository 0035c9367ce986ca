"""Ensembles and test-time augmentation as exported models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.export.card import read_card
from suite.export.ensemble import Wanted, build
from suite.export.loading import load
from suite.export.predict import Predictor
from suite.export.publish import export_ensemble
from suite.models.assembly import load_trained
from suite.models.ensembles import viewed
from suite.models.preprocessing import evaluation_preparer
from suite.spec import Preprocess
from suite.store.study import StudyDir, final_of

if TYPE_CHECKING:
    from tests.conftest import Command, Small
    from tests.export.conftest import Own

CPU = torch.device("cpu")


def trial_of(study: StudyDir, arm: str) -> str:
    return next(state.id for state in study.states() if state.trial.arm == arm)


def probabilities(study: StudyDir, trial_id: str, pictures: Tensor, of: Callable[[Tensor], list[Tensor]]) -> Tensor:
    """Of the trial's own model, the mean over views of the stored pictures."""
    directory = study.trial(trial_id)
    trial = directory.trial()
    assert trial is not None and trial.preprocess is not None
    model = load_trained(directory, trial, trial.preprocess, 10, study.path.parent).model
    prepare = evaluation_preparer(trial.preprocess, CPU)
    with torch.inference_mode():
        return torch.stack([model(prepare(view)).softmax(1) for view in of(pictures)]).mean(0)


def test_members_of_other_sizes_heads_and_backbones_answer_together(study: StudyDir, tmp_path: Path) -> None:
    """With the mean of the probabilities that each has for the stored pictures."""
    ids = [trial_of(study, arm) for arm in ("whole", "timm", "mlp")]
    names = tuple(f"small/{one}" for one in ids)
    said: list[str] = []
    wanted = Wanted(names, None, ("shift",))
    done = export_ensemble(study.path.parent, wanted, tmp_path / "model", say=said.append)
    card = read_card(tmp_path / "model")
    validation = search_splits("mnist", limit=study.states()[0].trial.limit).validation
    pictures, labels = torch.from_numpy(validation.images), torch.from_numpy(validation.labels)

    def seen(images: Tensor) -> list[Tensor]:
        return viewed(images.float(), ["shift"])

    alone = [probabilities(study, one, pictures, lambda images: [images]) for one in ids]
    together = torch.stack([probabilities(study, one, pictures, seen) for one in ids]).mean(0)
    prepare = evaluation_preparer(card.preprocess, CPU)
    with torch.inference_mode():
        assert torch.allclose(load(tmp_path / "model")(prepare(pictures)).softmax(1), together, atol=1e-5)

    def accuracy(scores: Tensor) -> float:
        return (scores.argmax(1) == labels).double().mean().item()

    assert (
        card.accuracy == done["accuracy"] == accuracy(together) and card.interval[0] < card.accuracy < card.interval[1]
    )
    assert [one.accuracy for one in card.members] == [accuracy(scores) for scores in alone]
    assert card.accuracy_one_view == accuracy(torch.stack(alone).mean(0))
    assert [one.trial for one in card.members] == list(names) and card.images == len(labels) and said
    assert [one.preprocess.size for one in card.members] == [28, 32, 28] and card.preprocess.size == 28
    assert [one.head.kind if one.head else None for one in card.members] == [None, None, "mlp"]

    records = [study.trial(one).record() for one in ids]
    costs = [record.cost for record in records if record is not None and record.cost is not None]
    assert card.cost is not None and card.cost.parameters == sum(cost.parameters for cost in costs)
    assert card.cost.forward_flops == 5 * sum(cost.forward_flops for cost in costs)
    assert card.cost.latency_seconds and card.cost.energy_joules is None
    text = (tmp_path / "model" / "README.md").read_text()
    assert all(name in text for name in names) and "four shifts" in text
    answer = Predictor(tmp_path / "model").pixels(pictures[0])
    assert answer["label"] == str(int(together[0].argmax()))


def test_views_of_one_model_are_an_export_too(models: dict[str, Path], own: Own, tmp_path: Path) -> None:
    """Mirror images of pictures of one's own."""
    name = f"own/{own.trial('timm')}"
    done = export_ensemble(own.study.path.parent, Wanted((name,), None, ("flip",)), tmp_path / "model")
    card, plain = read_card(tmp_path / "model"), read_card(models["timm"])
    assert len(card.members) == 1 and done["trial"] == name and card.provenance == plain.provenance
    assert card.accuracy_one_view == plain.accuracy_fp32 and card.preprocess == plain.preprocess
    picture = next(own.pictures.rglob("*.png"))
    with torch.inference_mode():
        both = [load(models["timm"])(view) for view in viewed(_input(picture, card.preprocess), ["flip"])]
    wanted = torch.stack([scores.softmax(1) for scores in both]).mean(0)[0]
    found = Predictor(tmp_path / "model").file(picture)["probabilities"]
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-4)


def _input(path: Path, expects: Preprocess) -> Tensor:
    from suite.data.pictures import stored_picture

    return evaluation_preparer(expects, CPU)(torch.from_numpy(stored_picture(path, expects).copy())[None])


def test_the_best_trials_of_a_study_are_chosen(small: Small) -> None:
    finished = [s for s in small.study.states() if s.state == "finished"]
    ranked = sorted(finished, key=lambda s: (-(s.best or 0), s.trial.number))
    built = build(small.results, Wanted(("small",), 2))
    assert [one.trial for one in built.card.members] == [f"small/{state.id}" for state in ranked[:2]]
    assert built.left_out == ()
    with pytest.raises(InputError, match=f"has {len(finished)} finished trials .* asks for 50"):
        build(small.results, Wanted(("small",), 50))


def test_trials_that_see_other_pictures_than_the_best_are_left_out(own: Own) -> None:
    """And not more are found than there are."""
    with pytest.raises(InputError, match="1 others do not see the same pictures"):
        build(own.study.path.parent, Wanted(("own",), 2))


def test_trainings_of_one_trial_with_other_seeds_are_found(small: Small) -> None:
    """Those of the final evaluation, beside the trial itself."""
    again = final_of(small.study).states()
    chosen = next(s for s in small.study.states() if s.trial.params == again[0].trial.params and s.state == "finished")
    built = build(small.results, Wanted((f"small/{chosen.id}",), 3))
    first, *others = built.card.members
    assert first.trial == f"small/{chosen.id}" and all(one.trial.startswith("small/final/") for one in others)
    assert len({trial.seed for trial in built.trials}) == 3 and len({one.sha256 for one in built.card.members}) == 3
    with pytest.raises(InputError, match=r"has 3 finished trainings .*asks for 4.*evaluate small --final"):
        build(small.results, Wanted((f"small/{chosen.id}",), 4))


def test_what_does_not_go_together_is_refused(small: Small, own: Own, study: StudyDir, tmp_path: Path) -> None:
    ours = [f"small/{s.id}" for s in small.study.states() if s.state == "finished"][:2]
    theirs = tuple(f"own/{own.trial(arm)}" for arm in ("net", "timm"))
    (tmp_path / "own").symlink_to(own.study.path)
    (tmp_path / "small").symlink_to(small.study.path)
    for names, count, reason in (
        (theirs, None, r"do not see the same stored pictures\. .* --size and --fit"),
        ((ours[0], theirs[0]), None, "trained on different data"),
        ((ours[0], ours[0]), None, "are one model"),
        (tuple(ours), 3, "leave --ensemble out"),
        ((ours[0], "small/77"), None, "names no trial"),
    ):
        with pytest.raises(InputError, match=reason):
            export_ensemble(tmp_path, Wanted(names, count), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_pictures_that_have_changed_cannot_measure_an_ensemble(own: Own) -> None:
    extra = own.pictures / "z" / "extra.png"
    extra.write_bytes(next(own.pictures.rglob("*.png")).read_bytes())
    try:
        with pytest.raises(InputError, match="have changed since the trials"):
            build(own.study.path.parent, Wanted((f"own/{own.trial('net')}",), None, ("flip",)))
    finally:
        extra.unlink()


def test_the_command_tells_what_members_and_views_add(small: Small, suite: Command, tmp_path: Path) -> None:
    arguments = ("export", "small", "--results", small.results, "--ensemble")
    done = suite(*arguments, "2", "--tta", "flip", "--tta", "shift", "--to", "model")
    assert read_card(tmp_path / "model").views == ("shift", "flip")
    assert done.returncode == 0 and done.stdout.count("alone\n") == 2 and "without the other views" in done.stdout
    refused = suite(*arguments, "99", "--to", "another", "--json")
    assert refused.returncode == 2 and "asks for 99" in refused.stderr and not (tmp_path / "another").exists()
