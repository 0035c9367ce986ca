"""Records the table on which `mnist-suite bench search` replays searches: `python -m suite.bench.search_record FILE`.

Each configuration is trained with two seeds: by the whole recipe with nine evaluations, and by complete trainings, with
a schedule of their own, over a third and a ninth of it. The validation split alone is evaluated. The table in use was
recorded in 11 minutes on one NVIDIA H100, in float32, torch 2.11; of the 256 configurations of `net` the time was
enough for 45, spread over the grid, none of them with batches of 256.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import torch

from suite.bench.search_table import POINTS, RECIPES, SEEDS, SIZES, points
from suite.bench.workload import complete_training, examples, mnist_model
from suite.data.datasets import search_splits
from suite.hardware import device
from suite.models import heads
from suite.models.backbones import embed
from suite.models.preprocessing import evaluation_preparer
from suite.spec import Augment, Evaluated, Linear
from suite.spec.load import load_experiment
from suite.training import loop
from suite.training import state as training_state
from suite.training.augment import feature_preparer, training_preparer
from suite.training.evaluation import Examples
from suite.training.stacking import Population
from suite.training.state import Diverged, Step

# Heads are trained as one stack. Of the others, each task trains a part of the configurations one after another.
PARTS = {"net": 4, "lean-s": 8, "head": 1}

Task = tuple[str, int, tuple[int, ...], int]  # model, seed, numbers of configurations, divisor of the epochs

_loaded: dict[str, tuple[Examples, Examples]] = {}  # training and validation examples, by device or "features"


def tasks() -> list[Task]:
    """All trainings, in groups that are trained together: equal batch sizes, seeds and epochs. The longest first."""
    found: list[Task] = []
    for model in RECIPES:
        for size in SIZES:
            group = tuple(n for n, point in enumerate(points(model)) if point.batch_size == size)
            parts = [group[i :: PARTS[model]] for i in range(PARTS[model])]
            found += [(model, seed, part, share) for seed in SEEDS for part in parts for share in (1, 3, 9)]
    return found


def work(task: Task) -> list[str]:
    """The rows of a task, as lines of the table."""
    model, seed, numbers, share = task
    where = torch.device("cpu") if model == "head" else device.pick("auto")
    torch.set_num_threads(1 if model == "head" or where.type == "cuda" else device.cores())
    runs = {n: _Run(model, n, seed, share, where) for n in numbers}
    if model == "head":
        _together(list(runs.values()))
    else:
        for run in runs.values():
            run.alone()
    return [f"{model},{n},{seed},{share},{' '.join(map(str, run.hits))}" for n, run in runs.items()]


class _Run:
    """One training; `hits` are its right answers on validation at each evaluation, until it diverged."""

    def __init__(self, model: str, number: int, seed: int, share: int, where: torch.device) -> None:
        point, recipe = points(model)[number], RECIPES[model]
        train, self.validation = _examples(model, where)
        epochs = recipe.epochs / share
        if epochs < 1:  # a complete training over a part of an epoch sees a part of the images
            order = loop.epoch_order(seed, 0, len(train), torch.device("cpu"))[: round(len(train) * epochs)]
            train = Examples(train.inputs[order.to(where)], train.labels[order.to(where)])
        self.recipe = recipe.model_copy(update={**point.params(), "epochs": max(1, round(epochs)), "precision": "fp32"})
        checks = [recipe.epochs * k / POINTS for k in range(1, 9)] if share == 1 else []
        torch.manual_seed(seed)
        if model == "head":
            network, prepare = heads.make(Linear(), train.features[:4096], 10, seed), feature_preparer
        else:
            network, expects = mnist_model(model, where, seed)
            prepare = training_preparer(expects, Augment(), where)
        self.training = training_state.begin(network, self.recipe, where, torch.float32)
        self.items = loop.training_loop(
            self.training, train, self.validation, self.recipe, prepare, seed=seed, checks=checks
        )
        self.hits: list[int] = []

    def advance(self) -> Step | None:
        """To the next step; None at the end, or where the training diverged."""
        try:
            for item in self.items:
                if isinstance(item, Step):
                    return item
                if isinstance(item, Evaluated):
                    self.hits.append(round(item.accuracy * len(self.validation)))
        except Diverged:
            pass
        return None

    def alone(self) -> None:
        while (step := self.advance()) is not None:
            loop.run_step(step)


def _together(runs: list[_Run]) -> None:
    stack = Population(everywhere=True)
    while runs:
        steps = {run: step for run in runs if (step := run.advance()) is not None}
        failures = stack.run_steps(list(steps.values()))
        for failure in failures.values():
            raise failure
        runs = list(steps)


def _examples(model: str, where: torch.device) -> tuple[Examples, Examples]:
    key = "features" if model == "head" else str(where)
    if key not in _loaded:
        if model == "head":
            train, validation = torch.load(os.environ["FEATURES"], weights_only=True)
            _loaded[key] = Examples(*train), Examples(*validation)
        else:
            splits = search_splits("mnist")
            _loaded[key] = examples(splits.train, where), examples(splits.validation, where)
    return _loaded[key]


@torch.inference_mode()
def save_features(path: Path) -> None:
    """The features of both splits by the pretrained CNN of the experiment `mnist`."""
    where, plan = device.pick("auto"), load_experiment("mnist").pretraining
    assert plan is not None
    splits = search_splits("mnist")
    with torch.inference_mode(False):
        model, _, expects = complete_training(plan.backbone, plan.recipe, splits, where, seed=0)
    model.eval()
    prepare, parts = evaluation_preparer(expects, where), []
    for split in (splits.train, splits.validation):
        images = torch.from_numpy(split.images)
        rows = [embed(model, prepare(images[i : i + 1000].to(where))).cpu() for i in range(0, len(images), 1000)]
        parts.append((torch.cat(rows), torch.from_numpy(split.labels)))
    torch.save(parts, path)


def record(path: Path, processes: int, only: list[str]) -> None:
    """Append what `path` lacks; a recording that was cut off goes on."""
    with tempfile.TemporaryDirectory() as folder:
        if "head" in only:
            os.environ["FEATURES"] = str(Path(folder) / "features.pt")
            save_features(Path(os.environ["FEATURES"]))
        done: set[tuple[str, ...]] = set()
        if path.exists():
            done = {tuple(line.split(",")[:4]) for line in path.read_text().splitlines()}
        left = [t for t in tasks() if t[0] in only and (t[0], str(t[2][0]), str(t[1]), str(t[3])) not in done]
        with multiprocessing.get_context("spawn").Pool(processes) as pool, open(path, "a") as file:
            for number, rows in enumerate(pool.imap_unordered(work, left), 1):
                file.write("".join(f"{row}\n" for row in rows))
                file.flush()
                sys.stderr.write(f"{number} of {len(left)}\n")


def as_table(recorded: Path) -> str:
    """`search_table.csv` from what `record` wrote: the configurations of which all trainings are there."""
    rows = {tuple(line.split(",")[:4]): line.split(",")[4] for line in recorded.read_text().splitlines()}
    lines = ["model,number,seed,ninth,third,whole"]
    for model, number in sorted({(key[0], int(key[1])) for key in rows}):
        found = {
            (seed, share): rows.get((model, str(number), str(seed), str(share)))
            for seed in SEEDS
            for share in (1, 3, 9)
        }
        if None not in found.values():
            for seed in SEEDS:
                ninth, third = ((found[seed, share] or "").split()[-1:] for share in (9, 3))
                lines.append(f"{model},{number},{seed},{''.join(ninth)},{''.join(third)},{found[seed, 1]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, help="where the trainings are noted; search_table.csv is written beside it")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    chosen = parser.parse_args()
    record(chosen.file, chosen.processes, chosen.only)
    chosen.file.with_name("search_table.csv").write_text(as_table(chosen.file))
