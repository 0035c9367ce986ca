"""Confusion matrix, calibration and the most confident mistakes of a classifier."""

import json

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score

from suite.ranking import mistakes as ranking
from suite.ranking import statistics
from suite.reporting import plots_mistakes
from suite.spec import Mistakes
from suite.training.evaluation import Examples
from suite.training.mistakes import MOST_CONFIDENT, balanced_accuracy, calibration_error, find_mistakes, reliability

CLASSES = ("zero", "one", "two")


def answers(count: int, seed: int = 0) -> tuple[torch.Tensor, Examples]:
    """Random logits and labelled random images."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, len(CLASSES), (count,), generator=generator)
    return 3 * torch.randn(count, len(CLASSES), generator=generator), Examples(images, labels)


def test_the_reliability_diagram_agrees_with_scipy() -> None:
    """Counts and means of the bins are those of scipy.stats.binned_statistic; the error follows from them."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 5000)
    correct = rng.uniform(size=5000) < confidence**2  # overconfident
    bins = reliability(confidence, correct)
    edges = np.linspace(0, 1, 16)
    counts, _, _ = scipy_stats.binned_statistic(confidence, correct, "count", edges)
    means, _, _ = scipy_stats.binned_statistic(confidence, correct, "mean", edges)
    levels, _, _ = scipy_stats.binned_statistic(confidence, confidence, "mean", edges)
    assert [b.count for b in bins] == counts[counts > 0].tolist()
    assert calibration_error(bins) == pytest.approx(np.nansum(counts * np.abs(means - levels)) / 5000)
    assert calibration_error(reliability(np.ones(4), np.array([1, 1, 1, 0]))) == pytest.approx(0.25)
    assert calibration_error([]) == 0


def test_counts_and_worst_mistakes_follow_from_the_logits() -> None:
    """Each image is counted once under its label and prediction; the mistakes kept are the most confident ones."""
    logits, examples = answers(200)
    found = find_mistakes(logits, examples, CLASSES)
    predicted = logits.argmax(1)
    for label in range(3):
        for guess in range(3):
            assert found.confusion[label][guess] == int(((examples.labels == label) & (predicted == guess)).sum())
    assert len(found.worst) == MOST_CONFIDENT
    confidences = [mistake.probability for mistake in found.worst]
    assert confidences == sorted(confidences, reverse=True)
    wrong = predicted != examples.labels
    assert confidences[0] == pytest.approx(logits.softmax(1).max(1).values[wrong].max().item(), abs=1e-5)
    first = found.worst[0]
    assert examples.labels[first.index] == first.label != first.predicted == predicted[first.index]
    assert torch.tensor(first.pixels).shape == (4, 4)
    assert sum(b.count for b in found.bins) == 200


def test_mistakes_keep_their_colours() -> None:
    """As they are read for the report: coloured images in colours, grey ones as they are, not as negatives."""
    logits, examples = answers(30)
    for images in (examples.inputs, examples.inputs[:, :1], examples.inputs[:, :1].expand(-1, 3, -1, -1)):
        written = find_mistakes(logits, Examples(images, examples.labels), CLASSES)
        for one, kept in zip(ranking.Mistakes.model_validate_json(written.model_dump_json()).worst, written.worst):
            image = images[kept.index].permute(1, 2, 0).numpy()
            coloured = images.shape[1] == 3 and images.stride(1) != 0
            assert one.image.tolist() == (image if coloured else image[..., 0]).tolist()
    picture = plots_mistakes.worst([one], list(CLASSES)).axes[0].images[0]
    assert picture.get_cmap().name == "gray" and picture.get_clim() == (0, 255)


def test_large_mistakes_are_made_small_in_colours() -> None:
    colours = torch.tensor([200, 100, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 256, 128)
    written = find_mistakes(torch.tensor([[0.0, 9.0, 0.0]]), Examples(colours, torch.tensor([0])), CLASSES)
    (one,) = ranking.Mistakes.model_validate_json(written.model_dump_json()).worst
    assert one.image.shape == (64, 32, 3) and one.image[5, 5].tolist() == [200, 100, 0]
    with pytest.raises(ValueError, match="three bytes a pixel"):
        ranking.Mistake.model_validate(one.model_dump() | {"rgb": "AAAA"})


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    """The same figure where it is recorded and where it is read; a class without images does not count."""
    logits, examples = answers(200)
    logits[:, 0] += 2 * (examples.labels == 0)  # one class is better than the others
    found = find_mistakes(logits, examples, CLASSES)
    expected = balanced_accuracy_score(examples.labels.numpy(), logits.argmax(1).numpy())
    assert balanced_accuracy(found.confusion) == pytest.approx(expected)
    assert statistics.balanced_accuracy(found.confusion) == pytest.approx(expected)
    assert balanced_accuracy([[3, 1], [0, 0]]) == statistics.balanced_accuracy([[3, 1], [0, 0]]) == 0.75


def test_validation_json_keeps_its_format() -> None:
    """The keys and plain values of the file are those that earlier versions wrote, and a file without calibration,
    as older versions wrote it, still reads."""
    logits, examples = answers(50)
    found = find_mistakes(logits, examples, CLASSES)
    written = json.loads(json.dumps(found.model_dump(mode="json")))
    assert list(written) == ["classes", "confusion", "ece", "bins", "worst"]
    assert list(written["bins"][0]) == ["low", "high", "count", "confidence", "accuracy"]
    assert list(written["worst"][0]) == ["index", "label", "predicted", "probability", "pixels", "rgb"]
    assert Mistakes.model_validate_json(json.dumps(written)) == found
    del written["ece"], written["bins"]
    assert Mistakes.model_validate_json(json.dumps(written)).bins == ()
