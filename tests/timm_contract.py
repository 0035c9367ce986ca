"""The contract of all architectures of timm: built, trained, given a head, exported and read back by plain timm.

    python -m tests.timm_contract             all of them, in PROCESSES processes; what the log has is not run again
    python -m tests.timm_contract NAME ...    some of them
    python -m tests.timm_contract --write     docs/backbones.md and the list that the tests compare, from the log

Weights are random and images as small as each model takes. Of models with more than LARGE parameters only shapes are
checked, on the meta device.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import timm
import torch
from torch import nn

from suite.data.splits import Info
from suite.export.card import WEIGHTS, Card
from suite.export.checks import TOLERANCE, check
from suite.export.publish import write_card, write_timm_config
from suite.models import backbones, classifiers, heads
from suite.models.feasibility import refusal
from suite.models.preprocessing import evaluation_preparer, preprocess
from suite.spec import HeadOnly, LpFt, Mlp, Preprocess, Recipe, Scratch
from suite.training.augment import Augment, training_preparer
from suite.training.checkpoint import save_tensors
from suite.training.evaluation import Examples
from suite.training.loop import fit
from suite.training.state import begin

LARGE = 40_000_000  # parameters

NOISE = TOLERANCE / 2  # of logits by rounding alone, relative

SIZES = (32, 64, 128, 192, 256)  # pixels to try, before timm's own size of the model

CLASSES = tuple("0123456789")

WHY = {
    "lp-ft": "the classifier is no linear layer that a probe could be written into",
    "head linear": "several classifiers, each on a part of the features",
    "head mlp": "several classifiers; of two on the same features linear, ridge and logreg heads can take the place",
    "colour images only": "grey ones do not fit the first layer",
}  # of limits

LOG = Path("timm-contract.jsonl")

LIST = Path(__file__).parent / "fixtures" / "timm.json"

DOCS = Path(__file__).parent.parent / "docs" / "backbones.md"

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture."""

    name: str
    state: str  # "works", "shapes" (works as far as shapes tell), "refused", or "broken": it is neither
    reason: str = ""  # why it is refused or broken
    limits: tuple[str, ...] = ()  # what of the suite it is refused for, beside working
    channels: int = 0
    size: int = 0  # pixels, the smallest of SIZES that works
    parameters: int = 0
    seconds: float = 0.0


def outcome(name: str) -> Outcome:
    """Try one architecture."""
    begun = time.monotonic()
    try:
        found = _outcome(f"timm:{name}")
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0]
        found = Outcome(name, "broken", f"{type(error).__name__}: {words}")
    return Outcome(**{**asdict(found), "name": name, "seconds": round(time.monotonic() - begun, 1)})


def _outcome(backbone: str) -> Outcome:
    found = smallest(backbone)
    if isinstance(found, str):
        return Outcome(backbone, "refused", found)
    channels, size, limits = found
    expects = preprocess(backbone, _described(channels), size=size)
    body = backbones.sketch(backbone, classes=len(CLASSES), channels=channels, size=size)
    parameters = sum(p.numel() for p in body.parameters())
    heads_fit = not any(limit.startswith("head") for limit in limits)
    state, reason = "works", ""
    with tempfile.TemporaryDirectory() as folder:
        if parameters > LARGE:
            state = "shapes"
        elif not _same_logits(backbone, expects, Path(folder), heads_fit):
            state, reason = "shapes", "with random weights, float32 does not determine its logits"
        if state == "shapes":
            _same_shapes(backbone, body, expects, Path(folder))
    return Outcome(backbone, state, reason, limits, channels, size, parameters)


def smallest(backbone: str) -> tuple[int, int, tuple[str, ...]] | str:
    """Channels, size and what is refused of the smallest images that the suite trains on; or why it trains on none."""
    native: int = backbones.timm_config(backbone).input_size[-1]
    reason: str | None = None
    for channels in (1, 3):
        for size in [*(s for s in SIZES if s < native), native]:
            facts = {"channels": channels, "size": size, "classes": len(CLASSES)}
            limits = ("colour images only",) * (channels == 3)
            reason = refusal(backbone, LpFt(), **facts)
            if reason is None:
                return channels, size, limits
            if "cannot take images" not in reason and refusal(backbone, Scratch(), **facts) is None:
                return channels, size, (*_refused(backbone, facts), *limits)
    return reason or ""


def _refused(backbone: str, facts: dict[str, int]) -> list[str]:
    kinds = {"lp-ft": LpFt(), "head linear": HeadOnly(), "head mlp": HeadOnly(head=Mlp())}
    found = {kind: refusal(backbone, strategy, **facts) for kind, strategy in kinds.items()}
    return [f"{kind} ({why})" for kind, why in found.items() if why is not None]


def _described(channels: int) -> Info:
    return Info("contract", "contract", CLASSES, channels, 28, (0.1,) * channels, (0.3,) * channels, "", "")


def _card(backbone: str, expects: Preprocess, sha256: str, head: bool) -> Card:
    return Card(
        backbone=backbone, dataset="mnist", classes=CLASSES, preprocess=expects, trial="study/0", strategy="full",
        accuracy=0.1, interval=(0.0, 0.2), images=10, sha256=sha256, timm=True, cost=None, provenance=None,
        head=HeadOnly().head if head else None,
    )  # fmt: skip


def _same_logits(backbone: str, expects: Preprocess, folder: Path, heads_fit: bool) -> bool:
    """One step, a linear head, the export and its check by the suite and by plain timm; then a head with layers.

    Returns False after the step if other memory formats lead to other logits: rounding errors grow in untrained models.
    """
    model = backbones.build(backbone, classes=len(CLASSES), channels=expects.channels, size=expects.size, seed=0)
    generator = torch.Generator().manual_seed(0)
    shape = (2, expects.channels, expects.stored, expects.stored)
    stored = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    examples = Examples(stored, torch.tensor([0, 1]))
    recipe = Recipe(optimizer="adamw", epochs=1, batch_size=2, lr=1e-4)  # gradients of untrained models may be huge
    prepare = training_preparer(expects, Augment(), CPU)
    list(fit(begin(model, recipe, CPU, torch.float32), examples, examples, recipe, prepare, seed=0))
    after = dict(model.named_parameters())
    assert any(not torch.equal(old, after[name]) for name, old in before.items()), "a step changes nothing"
    del before, after
    model.eval()
    plain = heads_fit and classifiers.holds_linear(model)
    images = evaluation_preparer(expects, CPU)(stored)
    if _noise(model, images) > NOISE:
        return False
    if plain:
        _attach(model, heads.Linear(), images)
    sha256 = save_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
    card = _card(backbone, expects, sha256, head=False)
    write_card(folder, card)
    write_timm_config(folder, model, card)
    check(folder, model, expects, stored, timm_loads=True)
    if heads_fit:
        if not plain:
            _attach(model, heads.Linear(), images)
        else:
            classifiers.zero(model)
            assert not model(images).any(), "the classifier is not reset"
    if plain and len(backbones.classifiers(model)) == 1:
        _attach(model, Mlp(hidden=8), images)
    return True


@torch.inference_mode()
def _noise(model: nn.Module, images: torch.Tensor) -> float:
    """The largest difference of logits between two memory formats, relative to the largest logit."""
    one, other = model(images), copy.deepcopy(model).to(memory_format=torch.contiguous_format)(images)
    return ((one - other).abs().max() / one.abs().max().clamp_min(1)).item()


@torch.no_grad()
def _attach(model: nn.Module, spec: heads.Linear | Mlp, images: torch.Tensor) -> None:
    features = backbones.embed(model, images)
    # Standardised by other features: those of untrained models are almost equal, and their gain would be huge.
    others = torch.randn(16, features.shape[1], generator=torch.Generator().manual_seed(2))
    head = heads.make(spec, others, len(CLASSES), seed=0)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    wanted = head(features)
    found = classifiers.attach(model, head)(images)
    worst = ((found - wanted).abs().max() / wanted.abs().max().clamp_min(1)).item()
    assert worst < 1e-3, f"with a {spec.kind} head the model differs from the head on its features by {worst:.2g}"


def _same_shapes(backbone: str, body: nn.Module, expects: Preprocess, folder: Path) -> None:
    """timm builds the same tensors from the configuration of the export."""
    write_timm_config(folder, body, _card(backbone, expects, "", head=False))
    with torch.device("meta"):
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=False).state_dict()
    own = body.state_dict()
    different = [key for key in own.keys() | theirs.keys() if key not in own or key not in theirs
                 or own[key].shape != theirs[key].shape]  # fmt: skip
    assert not different, f"timm builds other tensors from the export: {', '.join(sorted(different)[:3])}"


# --- all of them -----------------------------------------------------------------------------------------------


def names() -> list[str]:
    """All architectures, so that any stretch of them has models of many families."""
    models = timm.list_models()
    families: dict[str, list[str]] = {}
    for name in models:
        families.setdefault(timm.models.model_entrypoint(name).__module__, []).append(name)
    rank = {name: (place / len(members), name) for members in families.values() for place, name in enumerate(members)}
    return sorted(models, key=rank.__getitem__)


def logged(log: Path) -> dict[str, Outcome]:
    """Outcomes of this version of timm; a line that a kill cut short is left out."""
    found: dict[str, Outcome] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if facts.pop("timm") == timm.__version__:
            found[facts["name"]] = Outcome(**{**facts, "limits": tuple(facts["limits"])})
    return dict(sorted(found.items()))


def run(wanted: list[str], log: Path, processes: int) -> None:
    """Try those that are not in the log, or are broken there; a line in it for each."""
    done = {name: one for name, one in logged(log).items() if one.state != "broken"}
    left = [name for name in wanted if name not in done]
    counts = Counter(one.state for one in done.values())
    with (
        log.open("a") as file,
        get_context("spawn").Pool(processes, maxtasksperchild=50) as pool,
    ):
        for found in pool.imap_unordered(outcome, left):
            file.write(json.dumps({**asdict(found), "timm": timm.__version__}) + "\n")
            file.flush()
            counts[found.state] += 1
            said = ", ".join(f"{state} {count}" for state, count in counts.items())
            line = f"{counts.total()}/{len(wanted)} {found.name}: {found.state} {found.reason} {found.seconds:.0f} s"
            print(f"{line} ({said})", file=sys.stderr, flush=True)  # noqa: T201


def summary(found: dict[str, Outcome]) -> str:
    """The figures, as a Markdown table, and what is refused."""
    states = {
        "works": f"trained, given a head, exported and read back with the same logits (up to {LARGE // 10**6} M "
        "parameters)",
        "shapes": "the same by shapes alone, on the meta device (more parameters, or logits that rounding changes)",
        "refused": "refused before a training begins",
        "broken": "fails although it is not refused",
    }
    counts = Counter(one.state for one in found.values())
    rows = [f"| {counts[state]} | {words} |" for state, words in states.items() if counts[state] or state != "broken"]
    lines = [f"| of {len(found)} | |", "| ---: | --- |", *rows]
    for state in ("broken", "refused"):
        lines += ["", f"{state.capitalize()}:", ""] if counts[state] else []
        lines += [f"- `timm:{one.name}`: {one.reason}" for one in found.values() if one.state == state]
    limited: dict[str, list[str]] = {}
    for one in found.values():
        for limit in one.limits:
            limited.setdefault(limit.partition(" (")[0], []).append(one.name)
    lines += ["", "Refused for a part of what the suite does:", ""] if limited else []
    for limit, them in sorted(limited.items()):
        lines.append(f"- {limit} ({WHY[limit]}): {', '.join(f'`{name}`' for name in sorted(them))}")
    return "\n".join(lines)


def listed() -> dict[str, Outcome]:
    """What the log had when the list was written."""
    rows = json.loads(LIST.read_text())["outcomes"]
    return {row["name"]: Outcome(**{**row, "limits": tuple(row.get("limits", ()))}) for row in rows}


def write(found: dict[str, Outcome]) -> None:
    """The list that the tests compare, a line an architecture, and the page of the documentation."""
    plain = {name: asdict(replace(found[name], seconds=0.0)) for name in sorted(found)}
    rows = ",\n".join(json.dumps({k: v for k, v in row.items() if v}) for row in plain.values())
    LIST.write_text(f'{{"timm": "{timm.__version__}", "of": {len(timm.list_models())}, "outcomes": [\n{rows}\n]}}\n')
    DOCS.write_text(page(listed(), timm.__version__))


def page(found: dict[str, Outcome], version: str) -> str:
    """docs/backbones.md."""
    left = json.loads(LIST.read_text())["of"] - len(found)
    untried = f"\n{left} more architectures have not been through the contract yet.\n" if left else ""
    return f"""# timm's architectures

`timm:NAME` is any of the architectures of timm, with or without the tag of its weights. Before anything is trained,
written or downloaded, the suite builds each model that an experiment may choose without weights, and tries the size of
the images, a training step and the head. What cannot work is refused, all at once and with the reasons. Old names of
timm's models are refused with today's name. `--dry-run` does no more than this.

A head on frozen features is written into the classifier where that is one linear layer, a 1x1 convolution, or two
linear layers on the same features (distilled models); the exported model is then a plain model of timm's. Other
classifiers are replaced, and such exports are loaded by `suite.export.load`.

The contract over the architectures of timm {version}, with random weights, ten classes and the smallest images that
each takes. `make test-timm` repeats it; `python -m tests.timm_contract --write` writes this page.

{summary(found)}
{untried}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if not given.write:
        run(given.names or names(), given.log, given.processes)
    found = logged(given.log)
    print(summary(found))  # noqa: T201
    if given.write:
        write(found)
    sys.exit(any(one.state == "broken" for one in found.values()))


if __name__ == "__main__":
    main()
