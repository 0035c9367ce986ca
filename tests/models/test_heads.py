"""Heads on frozen features, and the cache the features come from."""

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge

from suite.data.datasets import search_splits
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


@pytest.mark.parametrize("spec", [Ridge(l2=3000.0), Logreg(c=0.01), Knn(k=3)], ids=lambda s: s.kind)
def test_solved_heads_learn_real_digits(digits: tuple[Examples, Examples], spec: HeadSpec) -> None:
    train, validation = digits
    head, _ = heads.solve(spec, train.inputs, train.labels, 10)
    accuracy = (head(validation.inputs).argmax(1) == validation.labels).float().mean().item()
    assert accuracy > 0.8


def test_ridge_is_scikit_learns(digits: tuple[Examples, Examples]) -> None:
    train, validation = digits
    spec = Ridge(l2=50.0)
    head, _ = heads.solve(spec, train.inputs, train.labels, 10)
    standardize = heads.Standardize(train.inputs)
    x = standardize(train.inputs).double().numpy()
    theirs = SklearnRidge(alpha=spec.l2 / x.shape[1] * len(x)).fit(x, torch.eye(10)[train.labels].double().numpy())
    expected = theirs.predict(standardize(validation.inputs).double().numpy())
    assert abs(head(validation.inputs).detach().numpy() / 10 - expected).max() < 1e-3


@pytest.mark.parametrize("spec", [Linear(), Mlp(hidden=16)], ids=lambda s: s.kind)
def test_folding_the_standardisation_changes_nothing(digits: tuple[Examples, Examples], spec: HeadSpec) -> None:
    train, validation = digits
    head = heads.make(spec, train.inputs, 10, seed=0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.testing.assert_close(head.folded()(validation.inputs), head(validation.inputs), rtol=1e-3, atol=1e-3)


def test_constant_features_do_no_harm() -> None:
    x = torch.cat((torch.randn(50, 3), torch.ones(50, 2)), 1)
    out = heads.Standardize(x)(x)
    assert torch.isfinite(out).all()
    assert (out[:, 3:] == 0).all()


def test_logreg_knows_classes_it_never_saw(digits: tuple[Examples, Examples]) -> None:
    train, _ = digits
    few = train.labels < 2
    head, _ = heads.solve(Logreg(c=0.1), train.inputs[few], train.labels[few], 10)
    assert set(head(train.inputs[few]).argmax(1).tolist()) == {0, 1}
