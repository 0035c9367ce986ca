"""The protocol of the final evaluation, and that nothing else can see the test images."""

from __future__ import annotations

import ast
import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy import stats as scipy_stats
from scipy.special import softmax

import suite
from suite.data import datasets
from suite.data.cache import raw_files
from suite.data.datasets import _training, describe
from suite.data.idx import parse_idx
from suite.errors import InputError
from suite.evaluation import final as evaluation_final
from suite.evaluation import reading
from suite.evaluation.reading import ANSWERS_FILE
from suite.evaluation.text import as_text
from suite.execution.stop import Stop
from suite.execution.weights import weights_of
from suite.models.assembly import load_trained
from suite.models.preprocessing import evaluation_preparer, of_trial
from suite.ranking.final import READINGS_FILE, TEST_FILE, readings
from suite.ranking.leaderboard import row as leaderboard_row
from suite.reporting.document import Table
from suite.reporting.facts import gather
from suite.reporting.sections_protocol import final as final_section
from suite.reporting.sections_protocol import protocol
from suite.spec import FROM_RANDOM, Arm, HeadOnly, HeadSpec, Pretraining, Recipe, Strategy
from suite.store import repair
from suite.store.files import cache_dir, write_model
from suite.store.study import StudyDir, final_of
from suite.training.setup import load_examples

CPU = torch.device("cpu")

PACKAGES = [Path(suite.__file__).parent, *(Path(suite.__file__).parents[1] / p for p in ("experiments", "tui"))]


# --- the test set is kept apart -----------------------------------------------------------------------------------


# names in suite.data that lead to the files of the test set
DOORS = {
    "test_split", "_read_part", "parse_part", "parse_idx", "raw_files", "file_status", "data_dir", "ROLES",
    "list_pictures", "read_test",
}  # fmt: skip


def test_only_the_final_evaluation_can_ask_for_test_images() -> None:
    """By the syntax tree of every module: who takes what out of the data module leads to the files of the test set."""
    taken: dict[str, set[str]] = {}
    spoken: set[str] = set()
    torchvision: set[str] = set()
    importers: dict[str, set[str]] = {
        "suite.bench.training": set(),
        "suite.bench.searches": set(),
        "suite.bench.baselines": set(),
    }
    modules = [path for package in PACKAGES for path in package.rglob("*.py")]
    assert len(modules) > 30
    for path in modules:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = [(node.module, one) for node in nodes if isinstance(node, ast.ImportFrom) for one in node.names]
        where = path.relative_to(Path(suite.__file__).parents[1]).as_posix()
        names = {one.asname or one.name for module, one in imported if module == "suite.data"}
        found = {one.name for module, one in imported if str(module).startswith("suite.data.")}
        for module, one in imported:
            for name in {f"{module}.{one.name}", str(module)} & importers.keys():
                importers[name].add(where)
        for node in nodes:
            if isinstance(node, ast.Constant) and str(node.value).partition(":")[0] in importers:  # an entry point
                importers[str(node.value).partition(":")[0]].add(where)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).removeprefix("suite.data.") in names:
                found.add(node.attr)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} & {"test_split", "parse_idx"}  # as getattr would take it
                spoken |= {where} if "t10k" in node.value else set()
            if isinstance(node, ast.Import | ast.ImportFrom) and "torchvision" in ast.unparse(node):
                torchvision.add(where)
        if (path.parent.name != "data" or path.name == "fetch.py") and found & DOORS:
            taken[where] = found & DOORS
    assert taken.pop("suite/evaluation/reading.py") == {"test_split"}
    assert "test_split" not in taken.pop("suite/data/fetch.py")  # it brings the files here and checks them
    # `bench time-to-99` says how long known recipes take to a test accuracy; it chooses nothing, no search calls it.
    assert taken.pop("suite/bench/training.py") == {"test_split"}
    # `bench sweep` makes a cache with the data and nothing else, and tests the winners of both searches, trained anew.
    assert taken.pop("suite/bench/searches.py") == {"data_dir", "test_split"}
    assert taken.pop("suite/bench/baselines.py") == {
        "data_dir"
    }  # where torchvision finds the images of the plain loops
    assert not taken
    assert spoken == {"suite/data/registry.py"}
    assert torchvision == {"suite/data/fetch.py", "suite/bench/baselines.py"}
    assert importers == {
        "suite.bench.training": {"suite/bench/registry.py"},
        "suite.bench.searches": {"suite/bench/registry.py"},
        "suite.bench.baselines": {"suite/bench/searches.py", "suite/bench/training.py"},
    }


def test_within_the_data_module_only_one_function_reads_them() -> None:
    tree = ast.parse(Path(datasets.__file__).read_text())
    readers = {
        function.name: [ast.unparse(call.args[1]) for call in ast.walk(function) if _calls(call, "_read_part")]
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }
    assert {name: args for name, args in readers.items() if args} == {
        "_training": ["'train'"],
        "test_split": ["'test'"],
    }


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_a_search_opens_no_test_file_and_the_evaluation_does(small: Any) -> None:
    assert small.opened_by_search == []
    assert {Path(p).name for p in small.opened_by_evaluation} >= {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}


STRATEGIES = get_args(get_args(Strategy)[0])
HEADS = get_args(get_args(HeadSpec)[0])


def every_way() -> dict[str, Arm]:
    """An arm for every strategy and every head that there is."""
    recipe = Recipe(epochs=1, batch_size=50, lr=0.05)
    ways: list[Any] = [kind() for kind in STRATEGIES if kind is not HeadOnly] + [
        HeadOnly(head=kind()) for kind in HEADS
    ]
    return {
        f"{way.kind}-{way.head.kind}" if isinstance(way, HeadOnly) else way.kind: Arm(
            backbone="lean-l", strategy=way, recipe=recipe, weights=None if way.kind in FROM_RANDOM else "experiment"
        )
        for way in ways
    }


@pytest.mark.slow
def test_a_search_works_where_there_are_no_test_files(
    tmp_path: Path, made: Callable[..., Any], search: Callable[..., StudyDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is trained, and however: what is not on the disk cannot be read."""
    cache = tmp_path / "cache"
    for path in raw_files("mnist")[:2]:
        target = cache / path.relative_to(cache_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(cache))
    monkeypatch.setattr(datasets, "fetch", lambda name, **_: pytest.fail(f"{name} was fetched"))
    for memory in (_training, load_examples):
        memory.cache_clear()
    arms = every_way()
    assert len(arms) == len(STRATEGIES) + len(HEADS) - 1 > 10
    try:
        first = Pretraining(dataset="mnist", backbone="lean-l", recipe=Recipe(epochs=1, lr=0.05))
        changes = {"arms": arms, "space": {}, "pretraining": first}
        study = search(made(trials=len(arms)).model_copy(update=changes), tmp_path / "results")
    finally:
        for memory in (_training, load_examples):
            memory.cache_clear()
    assert {s.trial.arm: s.state for s in study.states()} == dict.fromkeys(arms, "finished")


@pytest.mark.slow
def test_without_final_it_refuses_and_says_why(small: Any, suite: Callable[..., Any]) -> None:
    refused = suite("evaluate", "small", "--results", small.results)
    assert refused.returncode == 2
    assert "kept apart" in refused.stderr
    assert "--final" in refused.stderr
    unknown = suite("evaluate", "nothing", "--final", "--results", small.results)
    assert unknown.returncode == 2


# --- what it reports ------------------------------------------------------------------------------------------------


def test_finalists_are_the_best_of_each_arm_by_validation(small: Any) -> None:
    states = small.study.states()
    chosen = evaluation_final.finalists(states, 1)
    assert {s.trial.arm for s in chosen} == {"net-scratch", "net-head"}
    for one in chosen:
        own = [s.best for s in states if s.trial.arm == one.trial.arm and s.state == "finished"]
        assert one.best == max(own)
    assert len(evaluation_final.finalists(states, 100)) == sum(s.state == "finished" for s in states)


def test_final_trainings_have_seeds_of_their_own_and_the_same_recipe(small: Any) -> None:
    searched = {s.id: s for s in small.study.states()}
    final = {s.id: s for s in final_of(small.study).states()}
    assert len(final) == 4
    for row in small.outcome.finalists:
        before = searched[row.trial].trial
        assert before.seed not in row.seeds
        assert len(set(row.seeds)) == 2
        for run in row.runs:
            assert final[run].trial.recipe == before.recipe
            assert final[run].trial.rungs == ()
            assert final[run].record.provenance.command == "the evaluation"


def test_figures_from_the_saved_answers_by_other_means(small: Any) -> None:
    labels = parse_idx(raw_files("mnist")[3])
    images = parse_idx(raw_files("mnist")[2])
    digest = hashlib.sha256(images.tobytes() + labels.astype(np.int64).tobytes()).hexdigest()
    right: dict[str, list[np.ndarray]] = {}
    for row in small.outcome.finalists:
        logits = [load_file(final_of(small.study).trial(r).path / ANSWERS_FILE)["logits"] for r in row.runs]
        hits = right[row.arm] = [one.argmax(1) == labels for one in logits]
        accuracies = [h.mean() for h in hits]
        assert row.test_sha256 == digest
        assert row.accuracies == pytest.approx(accuracies)
        assert row.test.mean == pytest.approx(np.mean(accuracies))
        assert row.test.sd == pytest.approx(np.std(accuracies, ddof=1))
        low, high = scipy_stats.t.interval(0.95, 1, np.mean(accuracies), scipy_stats.sem(accuracies))
        assert (row.test.low, row.test.high) == (pytest.approx(max(0.0, low)), pytest.approx(min(1.0, high)))
        interval = scipy_stats.binomtest(int(hits[0].sum()), 10_000).proportion_ci(method="wilson")
        assert tuple(row.wilson) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert row.viewed is None and row.ensemble is not None and row.ensemble.members == 2
        right_together = np.mean([softmax(one, axis=1) for one in logits], axis=0).argmax(1) == labels
        assert row.ensemble.accuracy == pytest.approx(right_together.mean())
        pair = row.ensemble.against_first
        assert pair.only_first - pair.only_second == right_together.sum() - hits[0].sum()
    (pair,) = small.outcome.comparisons
    one, two = (right[getattr(pair, side)] for side in ("first", "second"))
    b, c = int((one[0] & ~two[0]).sum()), int((two[0] & ~one[0]).sum())
    assert (pair.mcnemar.only_first, pair.mcnemar.only_second) == (b, c)
    assert pair.mcnemar.exact == pytest.approx(scipy_stats.binomtest(b, b + c).pvalue, rel=1e-6)
    paired = scipy_stats.ttest_rel([h.mean() for h in one], [h.mean() for h in two])
    assert pair.paired_t.p == pytest.approx(paired.pvalue, rel=1e-6)


def test_the_arm_is_represented_by_validation_not_by_test(small: Any, tmp_path: Path) -> None:
    assert all(row.represents_arm for row in small.outcome.finalists)  # one each here
    assert all(abs(row.search_accuracy - row.test.mean) < 0.5 for row in small.outcome.finalists)
    assert "(optimistic)" in as_text(small.outcome)


@pytest.mark.slow
def test_every_reading_is_counted_and_none_is_repeated_needlessly(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    first = readings(study)
    assert len(first) == 1
    assert first[0].earlier == 0
    assert first[0].command == "the evaluation"
    assert first[0].version == study.study().version  # type: ignore[union-attr]
    assert len(first[0].models) == 4

    again = evaluation_final.plan(results, study, top=1, seeds=2, place="cpu")
    assert [s.state for s in evaluation_final.train(again, stop=Stop())] == ["running", "done"]  # nothing left to train
    assert evaluation_final.judge(again).finalists == small.outcome.finalists
    assert readings(study) == first

    more = evaluation_final.plan(results, study, top=1, seeds=3, place="cpu")
    for _ in evaluation_final.train(more, stop=Stop()):
        pass
    found = evaluation_final.judge(more)
    assert [row.test.n for row in found.finalists] == [3, 3]
    assert [r.earlier for r in found.readings] == [0, 1]
    assert "by this study: 2," in as_text(found)


def _shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images (N, 1, H, W) moved by at most one pixel; the edge is repeated."""
    height, width = images.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return images[..., rows, :][..., columns]


def test_views_and_ensembles_of_arms_come_from_one_more_reading(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study, final = StudyDir(results, "small"), final_of(StudyDir(results, "small"))
    whole = datasets.test_split("mnist")
    part = type(whole)(whole.images[:300], whole.labels[:300])
    monkeypatch.setattr(reading, "test_split", lambda *_: part)
    wanted: dict[str, Any] = {"views": ("shift",), "ensembles": [["net-scratch", "net-head"]]}
    plan = evaluation_final.plan(results, study, top=1, seeds=2, place="cpu", **wanted)
    found = evaluation_final.judge(plan)
    assert len(found.readings) == 2 and found.readings[-1].ensembles == (("net-scratch", "net-head"),)
    assert evaluation_final.judge(plan) == found.model_copy(update={"made": ANY}) and len(readings(study)) == 2

    together: dict[str, list[np.ndarray]] = {"plain": [], "viewed": []}
    for row in found.finalists:
        stored = [load_file(final.trial(run).path / ANSWERS_FILE) for run in row.runs]
        plain, viewed = ([softmax(one[key], axis=1) for one in stored] for key in ("logits", "logits+shift"))
        together["plain"] += plain
        together["viewed"] += viewed
        assert row.viewed is not None and row.viewed.ensemble is not None
        assert row.viewed.accuracies == pytest.approx([_accuracy(one, part.labels) for one in viewed])
        assert row.viewed.ensemble.accuracy == pytest.approx(_accuracy(np.mean(viewed, axis=0), part.labels))
        gain = np.mean([_accuracy(v, part.labels) - _accuracy(p, part.labels) for v, p in zip(viewed, plain)])
        assert row.viewed.paired_t.difference == pytest.approx(gain)
    model = final.trial(found.finalists[0].runs[0])
    state = next(s for s in final.states() if s.id == model.id)
    expects = state.trial.preprocess
    assert expects is not None
    network = load_trained(model, state.trial, expects, 10, results).model
    prepare, moves = evaluation_preparer(expects, CPU), ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    with torch.no_grad():
        seen = [network(prepare(torch.from_numpy(_shifted(part.images[:], *move)))).softmax(1) for move in moves]
    assert np.allclose(torch.stack(seen).mean(0), together["viewed"][0], atol=1e-5)

    (both,) = found.ensembles
    assert both.arms == ("net-scratch", "net-head") and both.plain.members == 4 and both.plain.images == 300
    assert both.plain.accuracy == pytest.approx(_accuracy(np.mean(together["plain"], axis=0), part.labels))
    assert both.viewed is not None
    assert both.viewed.accuracy == pytest.approx(_accuracy(np.mean(together["viewed"], axis=0), part.labels))
    assert not both.planned and "after the test images were first read" in as_text(found)
    tables = [b for b in final_section(gather(results, study)).blocks if isinstance(b, Table)]  # type: ignore[union-attr]
    assert [len(table.rows) for table in tables[-2:]] == [2, 6]
    assert tables[-1].rows[-1][2] == f"{100 * both.viewed.accuracy:.3f} %"

    (final.path / READINGS_FILE).unlink()
    (asked,) = evaluation_final.judge(plan).ensembles
    assert asked == both.model_copy(update={"planned": True})


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def test_answers_without_labels_are_not_combined_before_the_next_reading(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As early versions stored them."""
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    for trial in final_of(study).trials():
        stored = load_file(trial.path / ANSWERS_FILE)
        save_file({key: stored[key] for key in ("logits", "correct")}, trial.path / ANSWERS_FILE)
    found = evaluation_final.judge(evaluation_final.plan(results, study, top=1, seeds=2, place="cpu"))
    assert [row.model_copy(update={"ensemble": None}) for row in small.outcome.finalists] == list(found.finalists)
    assert len(found.readings) == 1
    whole = datasets.test_split("mnist")
    monkeypatch.setattr(reading, "test_split", lambda *_: type(whole)(whole.images[:50], whole.labels[:50]))
    arms = [["net-scratch", "net-head"]]
    found = evaluation_final.judge(evaluation_final.plan(results, study, top=1, seeds=2, place="cpu", ensembles=arms))
    assert len(found.readings) == 2 and all(row.ensemble for row in found.finalists) and len(found.ensembles) == 1


@pytest.mark.parametrize(
    ("arms", "why"), [(["net-scratch", "net"], "'net', which is no arm"), (["net-head", "net-head"], "two different")]
)
def test_ensembles_of_unknown_or_single_arms_are_refused(small: Any, arms: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        evaluation_final.plan(small.results, small.study, top=1, seeds=2, place="cpu", ensembles=[arms])


def test_heads_on_the_same_frozen_features_share_them(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backbone sees the test images once, and every head answers as its whole model does."""
    results = shutil.copytree(small.results, tmp_path / "results")
    study, seen = StudyDir(results, "small"), []
    extract = reading.extract
    monkeypatch.setattr(reading, "extract", lambda model, *rest: seen.append(model) or extract(model, *rest))
    (row,) = [row for row in small.outcome.finalists if row.arm == "net-head"]
    runs = [state for state in final_of(study).states() if state.id in row.runs]
    for run in runs:
        (final_of(study).trial(run.id).path / ANSWERS_FILE).unlink()
    reading.read(results, study, runs, place="cpu", command="again")
    assert len(runs) == 2 and len(seen) == 1
    known = describe("mnist").info
    for run in runs:
        expects = of_trial(run.trial, known)
        model = load_trained(final_of(study).trial(run.id), run.trial, expects, 10, results).model
        images = reading.test_images("mnist", expects.view(), torch.device("cpu"))
        with torch.inference_mode():
            whole = model(evaluation_preparer(expects, torch.device("cpu"))(images.inputs[:500]))
        torch.testing.assert_close(
            reading.answers(final_of(study), run.id)["logits"][:500], whole, rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_answers_that_were_damaged_are_given_again(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    one, two, *_ = final_of(study).trials()
    (one.path / ANSWERS_FILE).write_bytes(b"damaged")
    (two.path / TEST_FILE).write_text("{}")
    with open(final_of(study).path / READINGS_FILE, "a") as file:
        file.write("5\n[]\n{}\n")
    plan = evaluation_final.plan(results, study, top=1, seeds=2, place="cpu")
    found = evaluation_final.judge(plan)
    assert found.finalists == small.outcome.finalists
    assert sorted(found.readings[-1].models) == [one.id, two.id]
    (final_of(study).path / READINGS_FILE).write_text("{}\n")  # none is known: it is made up for by a new one
    assert len(evaluation_final.judge(plan).readings) == 1


@pytest.mark.slow
def test_test_images_that_cannot_be_read_are_no_reading(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was learned from them, so nothing counts, however often it is tried; once they are mended it is one."""
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    for trial in final_of(study).trials():
        (trial.path / TEST_FILE).unlink()
    cache = tmp_path / "cache"
    for path in raw_files("mnist"):
        target = cache / path.relative_to(cache_dir())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if "t10k-images" in path.name:
            target.write_bytes(target.read_bytes()[:-1] + b"?")
    plan = evaluation_final.plan(results, study, top=1, seeds=2, place="cpu")
    with monkeypatch.context() as patch:
        patch.setenv("MNIST_SUITE_CACHE", str(cache))
        for _ in range(2):
            with pytest.raises(InputError, match="t10k-images"):
                evaluation_final.judge(plan)
    assert len(readings(study)) == 1
    found = evaluation_final.judge(plan)
    assert len(found.readings) == 2 and found.finalists == small.outcome.finalists


def test_a_damaged_final_model_is_set_aside_and_trained_again(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    final = final_of(study)
    before = {state.id: state.record for state in final.states()}
    hurt = final.trials()[0]
    hurt.best.write_bytes(b"damaged")
    (found,) = repair.examine(study)
    assert (found.place, found.what) == (
        f"final/trials/{hurt.id}/result.json",
        "names best.safetensors, which is damaged",
    )
    assert repair.mend(study, [found]) == []
    for _ in evaluation_final.train(evaluation_final.plan(results, study, top=1, seeds=2, place="cpu"), stop=Stop()):
        pass
    assert repair.examine(study) == []
    now = {state.id: state.record for state in final.states()}
    assert {i: r and r.artifact_sha256 for i, r in now.items()} == {
        i: r and r.artifact_sha256 for i, r in before.items()
    }


def test_damaged_weights_are_refused(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    source = next(p.name for p in results.glob("pretrain-*"))
    sound = weights_of(source, results)
    path = results / sound.source
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # still finite, and still of the right shape
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        weights_of(source, results)


def test_missing_starting_weights_are_found_before_anything_is_trained(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    (path,) = results.glob("pretrain-*/trials/*/best.safetensors")
    sound = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match=r"best\.safetensors .* Put them back"):  # a head needs them in any case
        evaluation_final.plan(results, study, top=1, seeds=2, place="cpu")
    path.write_bytes(sound[:-1] + b"?")
    with pytest.raises(InputError, match="SHA-256 differs"):
        evaluation_final.plan(results, study, top=1, seeds=2, place="cpu")
    path.write_bytes(sound)
    shutil.rmtree(study.path / "final")
    assert evaluation_final.plan(results, study, top=1, seeds=2, place="cpu").trials
    assert not (study.path / "final").exists()


def test_a_stopped_evaluation_reads_nothing_and_goes_on(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results, ignore=shutil.ignore_patterns("final"))
    study, stop = StudyDir(results, "small"), Stop()
    plan = evaluation_final.plan(results, study, top=1, seeds=1, place="cpu")
    states: list[str] = []
    for status in evaluation_final.train(plan, stop=stop):
        states.append(status.state)
        if status.finished:
            stop.reason = "SIGINT"
    assert states[-1] == "stopped"
    assert readings(study) == []
    done = [s.id for s in final_of(study).states() if s.record]
    assert len(done) == 1
    records = {i: final_of(study).trial(i).record() for i in done}
    last = list(evaluation_final.train(plan, stop=Stop()))[-1]
    assert (last.state, last.finished) == ("done", 2)
    assert all(final_of(study).trial(i).record() == record for i, record in records.items())


def test_while_the_search_goes_on_nothing_is_read(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results, ignore=shutil.ignore_patterns("final"))
    study = StudyDir(results, "small")
    status = study.status()
    assert status is not None
    write_model(study.status_path, status.model_copy(update={"state": "running", "heartbeat": time.time()}))
    with pytest.raises(InputError, match="still being searched"):
        evaluation_final.plan(results, study, top=1, seeds=1)
    dead = {"state": "running", "heartbeat": time.time() + 1000, "pid": 2**22 + 1}  # above any pid; its clock was ahead
    write_model(study.status_path, status.model_copy(update=dead))
    assert evaluation_final.plan(results, study, top=1, seeds=1).chosen


def test_a_search_that_went_on_after_the_reading_is_shown(small: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(small.results, results)
    study = StudyDir(results, "small")
    state = study.states()[0]
    assert state.record is not None
    late = state.record.model_copy(update={"ended": time.time()})
    write_model(study.trial(state.id).path / "result.json", late)
    assert any("Careful: 1 trials" in getattr(b, "text", "") for b in protocol(gather(results, study)).blocks)
    assert not any("Careful" in getattr(b, "text", "") for b in protocol(gather(small.results, small.study)).blocks)


def test_the_search_knows_nothing_of_the_final_runs(small: Any) -> None:
    rows = [leaderboard_row("small", s) for s in small.study.states()]
    assert len(rows) == 6
    assert small.outcome.study == "small"
