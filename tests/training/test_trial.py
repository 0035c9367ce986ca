"""One trial in this process: its events, its files, its record, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from suite.data.datasets import search_splits
from suite.hardware import device
from suite.models import backbones, heads
from suite.models.assembly import load_trained
from suite.models.compression import can_prune
from suite.models.preprocessing import evaluation_preparer, of_trial, preprocess
from suite.spec import Evaluated, Event, Mistakes, Record, Teacher, Trial, Verdict, Weights
from suite.store.trial import Overtaken, TrialDir
from suite.training import checkpoint, head_trial
from suite.training.evaluation import Examples, evaluate
from suite.training.trial import run_trial

CPU = torch.device("cpu")
LIMIT = 300
pruning = pytest.mark.skipif(not can_prune(), reason="the extra `compress` is not installed")
SAME = ("state", "reason", "accuracy", "loss", "epoch", "steps", "curve", "artifact_sha256", "accuracy_fp32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A pretrained `lean-m`: with batch norm, so that bfloat16 changes its features."""
    from suite.models.backbones import build
    from suite.store.files import file_sha256

    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    checkpoint.save_tensors(path, build("lean-m", classes=10, channels=1, size=28, seed=3).state_dict())
    return Weights(source=str(path), sha256=file_sha256(path))


@pytest.fixture
def planned(make_trial: Callable[..., Trial]) -> Callable[..., Trial]:
    info = search_splits("mnist", limit=LIMIT).info

    def plan(**changes: Any) -> Trial:
        facts = {"data_hash": info.data_hash, "split_hash": info.split_hash, "limit": LIMIT, "backbone": "net"}
        recipe = {"epochs": 2, "batch_size": 50, "lr": 0.05, "precision": "fp32"}
        return make_trial(**facts | {"recipe": recipe} | changes)

    return plan


def answers(stream: Any, verdicts: Iterator[Verdict | None]) -> list[Event]:
    """All events of a trial, answered in turn; None once the verdicts are used up."""
    events: list[Event] = []
    try:
        event = next(stream)
        while True:
            events.append(event)
            event = stream.send(next(verdicts, None))
    except StopIteration:
        return events


def run(
    trial: Trial, place: Path, *, attempt: str = "a", verdict: Callable[[int], Verdict | None] | None = None
) -> Any:
    """(events, record) of an attempt at a trial in `place`; `verdict` answers the n-th event."""
    directory = TrialDir(place / trial.id)
    directory.create(trial)
    stream = run_trial(trial, directory, place, attempt=attempt)
    given = iter([]) if verdict is None else map(verdict, range(10_000))
    return answers(stream, given), directory.record()


def whole_in_fp32(trial: Trial, place: Path) -> float:
    """Accuracy on validation of the finished trial's model in float32, as an export answers."""
    splits = search_splits("mnist", limit=LIMIT)
    loaded = load_trained(TrialDir(place / trial.id), trial, of_trial(trial, splits.info), 10, place)
    validation = Examples(torch.from_numpy(splits.validation.images), torch.from_numpy(splits.validation.labels))
    return evaluate(loaded.model, validation, evaluation_preparer(loaded.expects, CPU), CPU, torch.float32).accuracy


HEADS = [kind.model_fields["kind"].default for kind in heads.HEADS]


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_on_bfloat16_features_says_so_and_is_measured_in_float32(
    planned: Callable[..., Trial], weights: Weights, tmp_path: Path, kind: str
) -> None:
    """The record names the precision of the features, and `accuracy_fp32` is that of the whole model in float32."""
    recipe = {"epochs": 2, "batch_size": 50, "lr": 0.05, "precision": "bf16"}
    changes = {"backbone": "lean-m", "weights": weights, "strategy": {"kind": "head", "head": {"kind": kind}}}
    trial = planned(recipe=recipe, **changes)
    events, record = run(trial, tmp_path)
    assert record.state == "finished", record.reason
    assert record.provenance.precision == "bf16"
    assert all(event.memory_bytes > 2**20 for event in events if event.kind == "progress")
    assert record.accuracy_fp32 == pytest.approx(whole_in_fp32(trial, tmp_path), abs=1e-9)


def test_the_float32_accuracy_of_a_head_is_not_copied(
    planned: Callable[..., Trial], weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of another precision that mislead the head: what it scores on them and in float32 differ."""
    whole = head_trial.frozen_features

    def misleading(*given: Any) -> Any:
        found = yield from whole(*given)
        shuffled = found.validation.inputs[torch.randperm(LIMIT, generator=torch.Generator().manual_seed(0))]
        return type(found)(found.train, Examples(shuffled, found.validation.labels), found.info)

    monkeypatch.setattr(head_trial, "frozen_features", misleading)
    recipe = {"epochs": 2, "batch_size": 50, "lr": 0.05, "precision": "bf16"}
    trial = planned(recipe=recipe, backbone="lean-m", weights=weights, strategy={"kind": "head"})
    _, record = run(trial, tmp_path)
    assert record.accuracy == record.accuracy_fp32 == whole_in_fp32(trial, tmp_path)
    assert record.accuracy > max(accuracy for _, accuracy in record.curve) + 0.2


def test_solving_a_head_is_timed_on_the_device(
    planned: Callable[..., Trial], weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is idle at both ends of what is called training time: queued work is neither missed nor added."""
    order: list[str] = []
    solve = head_trial.heads.solve
    monkeypatch.setattr(head_trial, "device_time", lambda _: order.append("clock") or float(len(order)))
    monkeypatch.setattr(head_trial.heads, "solve", lambda *given: order.append("solve") or solve(*given))
    trial = planned(weights=weights, backbone="lean-m", strategy={"kind": "head", "head": {"kind": "ridge"}})
    _, record = run(trial, tmp_path)
    assert order == ["clock", "solve", "clock"]
    assert record.cost.train_seconds == 2.0


def test_the_events_and_files_of_a_finished_trial(planned: Callable[..., Trial], tmp_path: Path) -> None:
    """Every event is written before it is yielded; the result is there before the event that tells of it."""
    trial = planned()
    events, record = run(trial, tmp_path)
    kinds = [event.kind for event in events if event.kind not in ("progress", "checkpointed")]
    assert kinds == ["started", "evaluated", "evaluated", "finished"]
    directory = TrialDir(tmp_path / trial.id)
    lines = [json.loads(line) for line in directory.events.read_text().splitlines()]
    assert [line["event"]["kind"] for line in lines] == [event.kind for event in events]
    assert {p.name for p in directory.path.iterdir()} == {
        "trial.json",
        "events.jsonl",
        "best.safetensors",
        "validation.json",
        "SHA256SUMS",
        "result.json",
    }
    assert record.state == "finished" and record.accuracy == record.accuracy_fp32 == events[-1].accuracy
    mistakes = Mistakes.model_validate_json((directory.path / "validation.json").read_text())
    hits = sum(row[i] for i, row in enumerate(mistakes.confusion))
    assert hits / LIMIT == pytest.approx(record.accuracy)


@pytest.mark.parametrize(
    "strategy",
    ["scratch", "head", "scratch, distilled", "low-rank", "lora", pytest.param("prune", marks=pruning)],
)
def test_a_stopped_trial_continues_to_the_same_result(
    planned: Callable[..., Trial], weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Stopped after each of its events in turn, the record of the trial is bit for bit that of an unstopped one."""
    monkeypatch.setattr("suite.training.loop.PROGRESS_SECONDS", 0.0)
    teacher = {
        "weights": weights,
        "backbone": "lean-m",
        "preprocess": preprocess("lean-m", search_splits("mnist").info),
    }
    changes: dict[str, Any] = {
        "scratch": {},
        "head": {"backbone": "lean-m", "weights": weights, "strategy": {"kind": "head"}},
        "scratch, distilled": {"teacher": Teacher(**teacher)},
        "lora": {"backbone": "lean-m", "weights": weights, "strategy": {"kind": "lora"}},
        "low-rank": {"backbone": "lean-m", "weights": weights, "strategy": {"kind": "low-rank"}},
        "prune": {"backbone": "lean-m", "weights": weights, "strategy": {"kind": "prune"}},
    }[strategy]
    trial = planned(**changes)
    _, whole = run(trial, tmp_path / "whole")
    record: Record | None = None
    for attempt in range(30):
        events, record = run(trial, tmp_path / "parts", attempt=str(attempt), verdict=lambda n: "stop" if n else None)
        if record is not None:
            break
        assert events[-1].kind == "stopped" and events[-2].kind == "checkpointed"
        saved = checkpoint.load(tmp_path / "parts" / trial.id)
        assert saved is not None and not any(key.endswith(".original") for key in saved.tensors)
    assert record is not None and attempt > 5
    for field in SAME:
        assert getattr(record, field) == getattr(whole, field), field


def test_a_checkpoint_of_other_frozen_weights_is_not_continued(
    planned: Callable[..., Trial], weights: Weights, tmp_path: Path
) -> None:
    """A checkpoint leaves frozen weights out. Where published weights have changed since, the training begins anew."""
    source, began = tmp_path / "weights.safetensors", []
    tensors = load_file(weights.source)
    checkpoint.save_tensors(source, tensors)
    trial = planned(backbone="lean-m", weights=Weights(source=str(source)), strategy={"kind": "bitfit"})
    for attempt in range(3):
        events, _ = run(trial, tmp_path, attempt=str(attempt), verdict=lambda n: "stop" if n else None)
        began.append(events[0].step)
        if attempt == 1:
            checkpoint.save_tensors(source, tensors | {"stages.0.conv.weight": tensors["stages.0.conv.weight"] + 1})
    assert began[1] > began[0] == began[2] == 0


def test_the_best_model_of_lora_is_a_plain_one(planned: Callable[..., Trial], weights: Weights, tmp_path: Path) -> None:
    """It is loaded without the weights that the trial started from, and costs what the backbone costs."""
    recipe = {"epochs": 1, "batch_size": 50, "lr": 0.05, "precision": "bf16"}
    trial = planned(recipe=recipe, backbone="lean-m", weights=weights, strategy={"kind": "lora", "rank": 2})
    events, record = run(trial, tmp_path)
    assert record.state == "finished", record.reason
    assert record.accuracy == whole_in_fp32(trial, tmp_path)
    plain = backbones.build("lean-m", classes=10, channels=1, size=28, seed=0)
    assert load_file(TrialDir(tmp_path / trial.id).best).keys() == plain.state_dict().keys()
    assert record.cost.parameters == events[0].parameters == sum(p.numel() for p in plain.parameters())
    assert record.cost.trainable == events[0].trainable < record.cost.parameters / 5


def test_a_verdict_prunes_after_an_evaluation_only(planned: Callable[..., Trial], tmp_path: Path) -> None:
    """The result of a pruned trial is written first; a verdict after another event has no effect."""
    trial = planned(rungs=(1.0,))
    events, record = run(trial, tmp_path, verdict=lambda n: "prune")
    assert [e.kind for e in events if e.kind != "progress"] == ["started", "evaluated", "pruned"]
    assert record.state == "pruned" and "not good enough" in record.reason
    assert record.curve == ((1.0, next(e.accuracy for e in events if isinstance(e, Evaluated))),)
    assert record.artifact is None and not TrialDir(tmp_path / trial.id).best.exists()


def test_how_trials_fail(planned: Callable[..., Trial], weights: Weights, tmp_path: Path) -> None:
    """A trial that cannot be set up has no cost; one that fails or diverges later has; each has its reason."""
    partial = {"kind": "partial", "blocks": 99}
    events, record = run(planned(backbone="lean-m", weights=weights, strategy=partial), tmp_path / "a")
    assert [e.kind for e in events] == ["failed"]
    assert record.state == "failed" and "only" in record.reason and record.cost is None and record.images == LIMIT
    events, record = run(planned(recipe={"batch_size": 301, "precision": "fp32"}), tmp_path / "b")
    assert [e.kind for e in events] == ["failed"]
    assert "Batch size 301" in record.reason and record.cost.train_seconds == 0
    events, record = run(planned(recipe={"lr": 1e9, "precision": "fp32"}), tmp_path / "c")
    assert (events[0].kind, events[-1].kind) == ("started", "pruned")
    assert record.reason.startswith("diverged: ") and record.cost.parameters > 0
    events, record = run(planned(caps={"params": 10}), tmp_path / "d")
    assert [e.kind for e in events] == ["started", "pruned"]
    assert record.reason.startswith("cap: ") and record.steps == 0


def test_an_attempt_that_another_has_overtaken_writes_nothing(planned: Callable[..., Trial], tmp_path: Path) -> None:
    """As when another host has taken the trial for abandoned: neither a result nor weights of the earlier attempt."""
    trial = planned()
    directory = TrialDir(tmp_path / trial.id)
    directory.create(trial)
    first = run_trial(trial, directory, tmp_path, attempt="first")
    assert next(first).kind == "started"
    second = run_trial(trial, TrialDir(directory.path), tmp_path, attempt="second")
    assert next(second).kind == "started"
    second.close()
    with pytest.raises(Overtaken):
        list(first)
    assert directory.record() is None and not directory.best.exists()


def test_synchronising_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`device_time` reads the clock after the device has drained its queue, on a GPU by its own means."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda where: order.append(str(where)))
    monkeypatch.setattr("time.perf_counter", lambda: order.append("clock") or 0.0)
    device.device_time(torch.device("cuda", 1))
    device.device_time(CPU)
    assert order == ["cuda:1", "clock", "clock"]
