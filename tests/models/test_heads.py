"""Heads on frozen features, and the cache the features come from."""

from typing import Any, get_args

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.models import heads
from suite.spec import HeadSpec, Knn, Linear, Logreg, Mlp, Ridge
from suite.training.evaluation import Examples


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    splits = search_splits("mnist", limit=1500)
    return tuple(  # type: ignore[return-value]
        Examples(torch.from_numpy(part.images).flatten(1).float(), torch.from_numpy(part.labels))
        for part in (splits.train, splits.validation)
    )


EVERY = [Linear(), Mlp(hidden=16), Ridge(l2=3000.0), Logreg(c=0.01), Knn(k=3)]


@pytest.mark.parametrize("spec", [s for s in EVERY if not heads.by_gradient(s)], ids=lambda s: s.kind)
def test_solved_heads_learn_real_digits(digits: tuple[Examples, Examples], spec: HeadSpec) -> None:
    train, validation = digits
    head, _ = heads.solve(spec, train.inputs, train.labels, 10)
    accuracy = (head(validation.inputs).argmax(1) == validation.labels).float().mean().item()
    assert accuracy > 0.8


def test_ridge_agrees_with_scikit_learn(digits: tuple[Examples, Examples]) -> None:
    train, validation = digits
    spec = Ridge(l2=50.0)
    head, _ = heads.solve(spec, train.inputs, train.labels, 10)
    standardize = heads.Standardize(train.inputs)
    x = standardize(train.inputs).double().numpy()
    theirs = SklearnRidge(alpha=spec.l2 / x.shape[1] * len(x)).fit(x, torch.eye(10)[train.labels].double().numpy())
    expected = theirs.predict(standardize(validation.inputs).double().numpy())
    assert abs(head(validation.inputs).detach().numpy() / 10 - expected).max() < 1e-3


@pytest.mark.parametrize("spec", [s for s in EVERY if heads.by_gradient(s)], ids=lambda s: s.kind)
def test_folding_the_standardisation_changes_nothing(digits: tuple[Examples, Examples], spec: HeadSpec) -> None:
    train, validation = digits
    head = fitted(spec, train)
    assert isinstance(head, heads.Head)
    torch.testing.assert_close(head.folded()(validation.inputs), head(validation.inputs), rtol=1e-3, atol=1e-3)


def test_constant_features_become_zero() -> None:
    x = torch.cat((torch.randn(50, 3), torch.ones(50, 2)), 1)
    out = heads.Standardize(x)(x)
    assert torch.isfinite(out).all()
    assert (out[:, 3:] == 0).all()


def test_logreg_accepts_classes_without_examples(digits: tuple[Examples, Examples]) -> None:
    train, _ = digits
    few = train.labels < 2
    head, _ = heads.solve(Logreg(c=0.1), train.inputs[few], train.labels[few], 10)
    assert set(head(train.inputs[few]).argmax(1).tolist()) == {0, 1}


def fitted(spec: HeadSpec, train: Examples) -> heads.AnyHead:
    """The head solved on `train`; one that is trained by gradient with random weights instead."""
    if not heads.by_gradient(spec):
        return heads.solve(spec, train.inputs, train.labels, 10)[0]
    head = heads.make(spec, train.inputs, 10, seed=0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return head


def test_every_kind_of_head_has_an_entry() -> None:
    assert set(heads.HEADS) == set(get_args(get_args(HeadSpec)[0])) == {type(spec) for spec in EVERY}


@pytest.mark.parametrize("spec", EVERY, ids=lambda s: s.kind)
def test_a_saved_and_an_exported_head_give_the_same_scores(digits: tuple[Examples, Examples], spec: HeadSpec) -> None:
    train, validation = digits
    head = fitted(spec, train)
    scores = head(validation.inputs)
    assert scores.shape == (len(validation.inputs), 10)
    restored = heads.restore(spec, dict(head.state_dict()), 10)
    torch.testing.assert_close(restored(validation.inputs), scores, rtol=0, atol=0)
    exported = head.folded() if isinstance(head, heads.Head) else head
    loaded = heads.restore_folded(spec, dict(exported.state_dict()), 10)
    torch.testing.assert_close(loaded(validation.inputs), exported(validation.inputs), rtol=0, atol=0)


@pytest.mark.parametrize("spec", [s for s in EVERY if heads.by_gradient(s)], ids=lambda s: s.kind)
def test_initial_weights_follow_from_the_seed_and_leave_the_generator_alone(
    digits: tuple[Examples, Examples], spec: HeadSpec
) -> None:
    state = torch.get_rng_state()
    first, again = (heads.make(spec, digits[0].inputs, 10, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_trained_and_solved_heads_are_not_confused(digits: tuple[Examples, Examples]) -> None:
    train, _ = digits
    with pytest.raises(InputError, match="trained, not solved"):
        heads.solve(Linear(), train.inputs, train.labels, 10)
    with pytest.raises(InputError, match="no weights to train"):
        heads.make(Knn(), train.inputs, 10, seed=0)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


def test_knn_allocates_no_tensor_larger_than_similarities_and_scores() -> None:
    """Votes are counted without a tensor of shape (B, k, classes), and the scores are those of one-hot votes."""
    images, bank, k, classes = 16, 300, 200, 100
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(bank, 8, generator=generator)
    labels = torch.randint(classes - 1, (bank,), generator=generator)  # the last class has no example
    head = heads.Neighbours(features, labels, k, classes)
    x = torch.randn(images, 8, generator=generator)
    with LargestTensor() as largest:
        scores = head(x)
    assert largest.elements <= images * max(bank, classes)

    similarity = F.normalize(head.standardize(x), dim=1) @ head.bank.T
    value, index = similarity.topk(k, dim=1)
    votes = F.one_hot(labels[index], classes) * (value / 0.07).softmax(1)[:, :, None]
    torch.testing.assert_close(scores, votes.sum(1).clamp_min(1e-8).log())
