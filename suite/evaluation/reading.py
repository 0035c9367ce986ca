"""The reading of the test images: tested models and their stored answers.

Of all that handles studies, this module alone reads test images. Every reading is recorded in readings.jsonl before a
model sees them; `shift` asks this module for both. (`bench time-to-99` reads them too, to time recipes chosen long
before.)
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from suite.data.datasets import describe, test_split
from suite.errors import InputError
from suite.hardware import device
from suite.hardware.budget import result
from suite.models import backbones
from suite.models.assembly import Assembled, load_trained
from suite.models.ensembles import Ensemble, Views, shared_input
from suite.models.features import extract
from suite.models.preprocessing import evaluation_preparer, of_trial
from suite.models.streaming import on_device
from suite.ranking.final import READINGS_FILE, TEST_FILE, Reading, readings, tested
from suite.spec import HeadOnly, Preprocess, Trial, View
from suite.store.files import read_bytes, write_atomic
from suite.store.provenance import commit, version
from suite.store.study import StudyDir, final_of, studies
from suite.store.trial import TrialState
from suite.training.checkpoint import save_tensors
from suite.training.evaluation import Examples, Scores, evaluate
from suite.training.mistakes import find_mistakes

ANSWERS_FILE = "test.safetensors"  # of one trial, see `Answers`

Answers = dict[str, Tensor]
"""One model's answers to the N test images: logits (N, classes), correct (N,) bool, and labels (N,), which files of
early versions lack. For test-time augmentation also the logits (N, classes) under `logits_of(views)`."""

OnModel = Callable[[int, int], None]  # called with the models tested so far and the number of all


def read(
    results: Path,
    study: StudyDir,
    finished: Sequence[TrialState],
    *,
    place: str,
    command: str,
    views: tuple[Views, ...] = (),
    ensembles: tuple[tuple[str, ...], ...] = (),
    on_model: OnModel = lambda *_: None,
) -> None:
    """Test every model whose answers are not stored yet, in fp32, as models are exported.

    Args:
        finished: trainings of the final evaluation.
        place: device, as on the command line.
        views: of test-time augmentation; each model also answers with its mean probabilities over them.
        ensembles: the arms of each ensemble that is asked for; they are recorded, and need the labels beside the
            answers.
    """
    directory = final_of(study)
    wanted = {"logits", "correct", logits_of(views)} | ({"labels"} if ensembles or views else set())
    new = [s for s in finished if not (_is_tested(directory, s.id, wanted) and readings(study))]
    if not new:
        return
    dataset = new[0].trial.dataset
    known = describe(dataset).info
    where = device.pick(place)
    for view in {of_trial(state.trial, known).view() for state in new}:
        test_split(dataset, view)  # images that cannot be read are no reading: nothing was learned from them
    # before a model sees the images, so that a crash cannot hide the reading
    record_reading(results, study, command, dataset, [s.id for s in new], ensembles)
    loaded: dict[View, tuple[Examples, str]] = {}  # with their SHA-256
    frozen: dict[Hashable, Examples] = {}
    for done, state in enumerate(sorted(new, key=_start)):
        on_model(done, len(new))
        expects = of_trial(state.trial, known)
        view = expects.view()
        if view not in loaded:
            images = test_images(dataset, view, where)
            loaded = {view: (images, _digest(images))}
        images, digest = loaded[view]
        assembled = load_trained(directory.trial(state.id), state.trial, expects, len(known.classes), results)
        assembled.model.to(where)
        scores = _scores(assembled, state.trial, images, where, frozen)
        path = directory.trial(state.id).path
        _write(path, assembled.model, expects, images, digest, scores, views, known.classes)


def _start(state: TrialState) -> str:
    """Sorts together the heads on one frozen backbone, and the models that see the same images."""
    trial = state.trial
    return f"{trial.preprocess} {trial.backbone} {trial.weights}"


def _scores(
    assembled: Assembled, trial: Trial, images: Examples, where: torch.device, frozen: dict[Hashable, Examples]
) -> Scores:
    """A model's answers to the images. `frozen` keeps the features of frozen backbones, which several heads share."""
    model, expects, weights = assembled.model, assembled.expects, assembled.provenance
    prepare = evaluation_preparer(expects, where)
    heads = backbones.classifiers(model) if isinstance(trial.strategy, HeadOnly) and weights is not None else []
    if weights is None or len(heads) != 1 or isinstance(heads[0], nn.Conv2d):
        return evaluate(model, images, prepare, where, torch.float32)
    key = (trial.backbone, weights.sha256, expects)
    if key not in frozen:
        frozen.clear()  # of one backbone at a time
        frozen[key] = Examples(result(extract(model, images.inputs, expects, torch.float32)), images.labels)
    return evaluate(heads[0], frozen[key], lambda features: features, where, torch.float32)


def _write(
    path: Path,
    model: nn.Module,
    expects: Preprocess,
    examples: Examples,
    digest: str,
    scores: Scores,
    views: tuple[Views, ...],
    classes: tuple[str, ...],
) -> None:
    """Write a model's answers to the images, whose SHA-256 is `digest`, and their figures."""
    where = examples.labels.device
    labels = examples.labels.cpu()
    answers = {"logits": scores.logits, "correct": scores.logits.argmax(1) == labels, "labels": labels}
    if views:
        given = shared_input([expects])
        whole = Ensemble([model], [expects], given, views).to(where)
        seen = evaluate(whole, examples, evaluation_preparer(given, where), where, torch.float32)
        answers[logits_of(views)] = seen.logits
    save_tensors(path / ANSWERS_FILE, answers)
    facts = {
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "images": len(examples),
        "test_sha256": digest,
        **find_mistakes(scores.logits, examples, classes).model_dump(mode="json"),
    }
    write_atomic(path / TEST_FILE, json.dumps(facts))


def logits_of(views: Sequence[str]) -> str:
    """The name of a model's logits for these views among its answers: "logits", or such as "logits+shift"."""
    return "+".join(("logits", *views))


def test_images(dataset: str, view: View, where: torch.device) -> Examples:
    """The official test images on a device. Whoever asks calls `record_reading` before a model sees them."""
    test = test_split(dataset, view)
    return Examples(on_device(test.images, where), torch.from_numpy(test.labels).to(where))


def _digest(examples: Examples) -> str:
    """SHA-256 over the images and the labels."""
    digest = hashlib.sha256()
    for start in range(0, len(examples), 1000):
        digest.update(examples.inputs[start : start + 1000].cpu().numpy().data)
    digest.update(examples.labels.cpu().numpy().data)
    return digest.hexdigest()


def record_reading(
    results: Path,
    study: StudyDir,
    command: str,
    dataset: str,
    models: Sequence[str],
    ensembles: tuple[tuple[str, ...], ...] = (),
) -> None:
    """Append a line to readings.jsonl. `models` are ids of trainings of the final evaluation."""
    elsewhere = sum(
        reading.dataset == dataset
        for other in studies(results)
        if other.name != study.name
        for reading in readings(other)
    )
    reading = Reading(
        time=time.time(),
        command=command,
        version=version(),
        commit=commit(),
        dataset=dataset,
        models=tuple(models),
        earlier=len(readings(study)),
        earlier_in_other_studies=elsewhere,
        ensembles=ensembles,
    )
    with open(final_of(study).path / READINGS_FILE, "a") as file:
        file.write("\n" + reading.model_dump_json() + "\n")  # the first ends a line that may have been torn
        file.flush()
        os.fsync(file.fileno())


def _is_tested(directory: StudyDir, trial_id: str, wanted: set[str]) -> bool:
    """Whether the files of an earlier reading are there and whole, with all the answers that are wanted."""
    try:
        return wanted <= answers(directory, trial_id).keys() and tested(directory, trial_id) is not None
    except (OSError, SafetensorError, InputError):
        return False


def answers(directory: StudyDir, trial_id: str) -> Answers:
    """The stored answers of a model. Raises OSError and SafetensorError."""
    path = directory.trial(trial_id).path / ANSWERS_FILE
    return load(read_bytes(path))  # `load_file` takes no path that is not UTF-8
