"""Synthetic studies for benchmarks and tests; none of their figures was measured.

They are written with the store's own functions, from fixed seeds and at fixed times, so that they are reproducible.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from suite.spec import (
    Arm,
    Choice,
    Cost,
    Evaluated,
    Event,
    Experiment,
    Failed,
    Finished,
    Full,
    HeadOnly,
    Line,
    LogFloat,
    Params,
    Paused,
    Progress,
    Provenance,
    Pruned,
    Recipe,
    Record,
    Scratch,
    Started,
    Status,
    Stopped,
    StudyFile,
    Trial,
    Weights,
)
from suite.store.files import write_model
from suite.store.study import StudyDir
from suite.store.trial import TrialDir

NOW = 1_800_000_000.0  # the present time in all synthetic studies, seconds since 1970
HOST = "made-up"
STATES = ("finished", "finished", "finished", "pruned", "running", "failed", "stale", "stopped", "waiting", "paused")
ARMS = {
    "cnn": Arm(backbone="cnn", strategy=Scratch(), weights=None),
    "head": Arm(backbone="timm:tf_efficientnet_lite0", strategy=HeadOnly(), weights="pretrained"),
    "full": Arm(backbone="timm:tf_efficientnet_lite0", strategy=Full(), weights="pretrained"),
}
FLOPS = {"cnn": 24_000_000, "net": 960_000, "timm:tf_efficientnet_lite0": 810_000_000}
PARAMETERS = {"cnn": 1_200_000, "net": 21_840, "timm:tf_efficientnet_lite0": 3_400_000}


def experiment(name: str, trials: int) -> Experiment:
    return Experiment(
        name=name,
        question="Is a made-up number larger than another one?",
        dataset="mnist",
        arms=ARMS,
        space={"lr": LogFloat(low=1e-4, high=1.0), "batch_size": Choice(values=(32, 64, 128))},
        trials=trials,
    )


def write_study(
    results: Path, name: str = "mnist", states: Sequence[str] = STATES, *, running: bool = True, epochs: int = 5
) -> StudyDir:
    """Write a study with a trial in each of `states`."""
    study = StudyDir(results, name)
    study.trials_path.mkdir(parents=True, exist_ok=True)
    write_model(
        study.path / "study.json",
        StudyFile(
            study=name,
            created=NOW - 3600,
            experiment=experiment("mnist", max(1, len(states))),
            data_hash="d" * 8,
            split_hash="s" * 8,
            classes=tuple("0123456789"),
            version="0.1.0",
            packages={},
        ),
        durable=False,
    )
    for number, state in enumerate(states):
        write_trial(study, number, state, epochs=epochs)
    write_status(study, states, running=running)
    return study


def write_status(study: StudyDir, states: Sequence[str], *, running: bool = True, heartbeat: float = NOW - 1) -> None:
    write_model(
        study.status_path,
        Status(
            study=study.name,
            state="running" if running else "done",
            pid=4242,
            host=HOST,
            started=NOW - 3600,
            heartbeat=heartbeat,
            planned=len(states),
            finished=states.count("finished"),
            pruned=states.count("pruned"),
            failed=states.count("failed"),
            paused=states.count("paused"),
            running=tuple(f"{i:04d}" for i, state in enumerate(states) if state == "running"),
            eta_seconds=750.0 if running else None,
            workers=2,
        ),
        durable=False,
    )


def make_trial(study: str, number: int, seed: int | None = None) -> Trial:
    rng = random.Random(number)
    arm = list(ARMS)[number % len(ARMS)]
    params: Params = {"lr": round(10 ** rng.uniform(-3, -0.5), 5), "batch_size": rng.choice((32, 64, 128))}
    return Trial(
        study=study,
        arm=arm,
        number=number,
        dataset="mnist",
        data_hash="d" * 8,
        split_hash="s" * 8,
        fraction=1.0,
        backbone=ARMS[arm].backbone,
        weights=None if arm == "cnn" else Weights(source="pretrained"),
        size=None,
        strategy=ARMS[arm].strategy,
        recipe=Recipe(lr=float(params["lr"]), batch_size=int(params["batch_size"])),
        params=params,
        seed=number if seed is None else seed,
        device="cpu",
        threads=1,
    )


def write_trial(study: StudyDir, number: int, state: str, *, epochs: int = 5, trial: Trial | None = None) -> TrialDir:
    """Write a trial, by default `make_trial`, in one of the states of `suite.store.trial.State`, or "stale"."""
    rng = random.Random(1000 + number)
    trial = trial or make_trial(study.name, number)
    done = epochs if state == "finished" else max(1, epochs // 2)
    if state == "paused":
        trial = trial.model_copy(update={"stages": (float(done),)})
    directory = study.trial(trial.id)
    directory.path.mkdir(parents=True, exist_ok=True)
    write_model(directory.path / "trial.json", trial, durable=False)
    if state == "waiting":
        return directory
    top = 0.96 + 0.035 * rng.random()
    curve = tuple((epoch, round(top - 0.2 * 0.4**epoch, 5)) for epoch in range(1, done + 1))
    began = NOW - 3000 + 60 * number % 2400
    end = NOW - (600 if state == "stale" else 2)
    lines = [Line(seq=i, time=t, event=e) for i, (t, e) in enumerate(_events(trial, state, curve, began, end))]
    directory.events.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    if state in ("finished", "pruned", "failed"):
        write_model(directory.path / "result.json", make_record(trial, state, curve, began, rng), durable=False)
    if state == "finished":
        directory.console.write_text(f"epoch 1\nepoch {done}\ndone\n")
        (directory.path / "validation.json").write_text(json.dumps(validation(rng)))
    return directory


def _events(trial: Trial, state: str, curve: tuple[tuple[float, float], ...], began: float, end: float):
    backbone, step = trial.backbone, 0
    planned = 100 * max(len(curve), 5)
    started = Started(
        attempt="a",
        pid=999_999_999,
        host=HOST,
        steps=planned,
        parameters=PARAMETERS[backbone],
        trainable=PARAMETERS[backbone],
        forward_flops=FLOPS[backbone],
    )
    pairs: list[tuple[float, Event]] = [(began, started)]
    for epoch, accuracy in curve:
        for part in range(1, 5):
            step += 25
            loss = 2.0 / (1 + 0.1 * step) + 0.02 * ((step * 7919) % 13) / 13
            event = Progress(
                step=step,
                epoch=epoch - 1 + part / 4,
                loss=loss,
                lr=trial.recipe.lr,
                images_per_second=9000.0,
                seconds=step / 10,
            )
            pairs.append((began + step / 10, event))
        pairs.append(
            (
                began + step / 10,
                Evaluated(step=step, epoch=epoch, accuracy=accuracy, loss=1 - accuracy, seconds=step / 10),
            )
        )
    last: dict[str, Event] = {
        "finished": Finished(accuracy=curve[-1][1], step=step),
        "paused": Paused(epochs=len(curve), accuracy=curve[-1][1], step=step),
        "pruned": Pruned(reason="below the best third at epoch 2", step=step),
        "failed": Failed(reason="CUDA out of memory (made up)", step=step),
        "stopped": Stopped(reason="asked for", step=step),
    }
    if state in last:
        pairs.append((began + step / 10, last[state]))
    elif pairs:
        pairs[-1] = (end, pairs[-1][1])
    return pairs


def make_record(
    trial: Trial, state: str, curve: tuple[tuple[float, float], ...], began: float, rng: random.Random
) -> Record:
    backbone, steps = trial.backbone, 100 * len(curve)
    best = max(curve, key=lambda point: point[1])
    seconds = steps / 10
    return Record(
        trial=trial.id,
        arm=trial.arm,
        state="finished" if state == "finished" else "pruned" if state == "pruned" else "failed",
        attempt="a",
        accuracy=best[1],
        loss=round(1 - best[1], 5),
        epoch=best[0],
        images=5000,
        steps=steps,
        curve=curve,
        reason=None if state == "finished" else f"{state} (made up)",
        cost=Cost(
            parameters=PARAMETERS[backbone],
            trainable=PARAMETERS[backbone] if trial.strategy.kind != "head" else 12_810,
            forward_flops=FLOPS[backbone],
            training_flops=3 * FLOPS[backbone] * steps * 64,
            wall_seconds=seconds * 1.2,
            train_seconds=seconds,
            setup_seconds=1.5,
            images_per_second=9000.0,
            peak_memory_bytes=300_000_000,
            memory_source="resident set",
            energy_joules=round(seconds * 40 * (1 + rng.random()), 1),
            energy_source="made up",
            latency_seconds=0.0012,
            latency_source="fastest of several passes",
        ),
        provenance=Provenance(
            version="0.1.0",
            command="mnist-suite sweep",
            commit=None,
            python="3.11",
            packages={},
            host=HOST,
            hardware="made up",
            threads=1,
            precision="fp32",
        ),
        artifact="best.safetensors" if state == "finished" else None,
        artifact_sha256="0" * 64 if state == "finished" else None,
        started=began,
        ended=began + seconds * 1.2,
    )


def validation(rng: random.Random) -> dict[str, object]:
    """The content of a validation.json."""
    confusion = [[480 if i == j else rng.choice((0, 0, 0, 1, 3)) for j in range(10)] for i in range(10)]
    worst = [
        {
            "index": 100 + i,
            "label": i % 10,
            "predicted": (i + 1) % 10,
            "probability": 0.99 - 0.01 * i,
            "pixels": [[255 if 8 < x < 18 and abs(x - y) < 4 + i else 0 for x in range(28)] for y in range(28)],
        }
        for i in range(6)
    ]
    return {"classes": list("0123456789"), "confusion": confusion, "worst": worst}
