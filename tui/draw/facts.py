"""What is known of a run, as pairs of name and value, for the run and compare screens. Pure functions."""

from __future__ import annotations

import time
from typing import Any

from suite.ranking.leaderboard import COLUMNS, Row, text
from tui.draw.cells import ago, duration, value_text
from tui.model.detail import clean
from tui.model.snapshot import Key, Run, Snapshot

Fact = tuple[str, str]  # name, value


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested dictionary as {"recipe.augment.shift": 2.0}."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: leaf for name, one in value.items() for key, leaf in flat(one, f"{path}.{name}" if path else name).items()
    }


def configuration(run: Run) -> list[Fact]:
    """Everything needed to repeat the trial; the searched hyperparameters come first, marked with '*'."""
    noted = [(key, clean(value)) for key, value in (("note", run.row.note), ("tags", run.row.tags)) if value]
    tuned = noted + [(f"{key} *", value_text(value)) for key, value in run.trial.canonical_params.items()]
    fields = flat(run.trial.model_dump(mode="json", exclude={"params", "schema_version"}))
    return tuned + [(key, value_text(value)) for key, value in fields.items() if value not in (None, [], {}, ())]


def costs(run: Run) -> list[Fact]:
    """The costs of the trial, each with how it was obtained, and where the trial ran."""
    row, record = run.row, run.record
    cost = record.cost if record else None
    latency = (cost.latency_source if cost else "") or "measured"  # older records do not say how
    sources = {
        "flops": "counted, forward, a multiply-add is two",
        "train_flops": "counted, forward and backward",
        "params": "counted",
        "trainable": "counted",
        "memory": cost.memory_source if cost else "",
        "energy": cost.energy_source if cost else "",
        "latency": latency,
    }
    facts = [
        (COLUMNS[key].title, f"{text(row, key):<12} {sources.get(key, 'measured')}".rstrip())
        for key in (
            "flops",
            "params",
            "trainable",
            "train_flops",
            "seconds",
            "wall",
            "speed",
            "memory",
            "energy",
            "latency",
        )
    ]
    if cost is not None:
        if cost.latency_256_seconds is not None:
            value = COLUMNS["latency"].text(cost.latency_256_seconds)
            facts.append(("256 images", f"{value:<12} {latency}"))
        facts.append(("setup time", f"{duration(cost.setup_seconds):<12} measured"))
    if row.accuracy is not None:
        interval = f" ({text(row, 'low')} … {text(row, 'high')}, 95 % Wilson)" if row.low is not None else ""
        facts.append(("val acc", f"{text(row, 'accuracy')}{interval}; the search chose by it, so it flatters"))
    if row.test is not None:
        facts.append(("test acc", f"{text(row, 'test')}{_bounds(row, 'test')}; `evaluate --final`, fresh seeds"))
    if row.shift is not None:
        fonts = f", fonts {text(row, 'fonts')}" if row.fonts is not None else ""
        facts.append(("shift acc", f"{text(row, 'shift')}{fonts}; `evaluate --shift`, corrupted validation images"))
    if row.gain is not None:
        facts.append(("gain", f"{text(row, 'gain')} points over the arm's default recipe{_bounds(row, 'gain')}"))
    if record and record.provenance:
        p = record.provenance
        facts += [
            ("host", p.host),
            ("hardware", p.hardware),
            ("precision", p.precision),
            ("threads", str(p.threads)),
            ("version", f"{p.version} {p.commit or ''}".strip()),
            ("python", p.python),
            ("command", p.command),
        ]
    return facts


def _bounds(row: Row, key: str) -> str:
    """' (98.90 … 99.31, 95 %)' of test or gain; empty where the interval is unknown."""
    low, high = getattr(row, f"{key}_low"), getattr(row, f"{key}_high")
    if low is None or high is None:
        return ""
    shown = COLUMNS[key].text
    return f" ({shown(low)} … {shown(high)}, 95 %)"


def lineage(run: Run, snapshot: Snapshot) -> list[str]:
    """The chain of runs that this one took its initial weights from, its teachers, and the runs that took their initial
    weights from this one."""
    lines = ["This run", f"  {_short(run)}"]
    seen = {run.key}
    current, depth = run, 1
    while current.trial.weights is not None:
        source = current.trial.weights.source
        indent = "  " * depth
        key = parent_key(source)
        parent = snapshot.find(key)
        if key is None or parent is None or parent.key in seen:
            where = "published with the backbone" if source == "pretrained" else source
            lines.append(f"{indent}└─ initial weights: {where}")
            break
        seen.add(parent.key)
        lines.append(f"{indent}└─ initial weights: {_short(parent)}")
        siblings = children(parent.key, snapshot)
        price = (f"{text(parent.row, 'train_flops')} FLOPs", text(parent.row, "seconds"), text(parent.row, "energy"))
        lines.append(f"{indent}     pretraining cost {', '.join(price)}")
        if parent.row.train_flops is not None and siblings:
            each = COLUMNS["train_flops"].text(parent.row.train_flops / len(siblings))
            lines.append(f"{indent}     shared by {len(siblings)} runs: {each} FLOPs each")
        current, depth = parent, depth + 1
    if run.trial.weights is None:
        lines.append("  └─ initial weights: random")
    for teacher in run.trial.teacher.all if run.trial.teacher else ():
        key = parent_key(teacher.weights.source)
        known = snapshot.find(key)
        lines.append(f"  └─ teacher: {teacher.weights.source if known is None else _short(known)}")
    initialised = children(run.key, snapshot)
    if initialised:
        lines += ["", f"Initial weights of {len(initialised)} runs", *(f"  {_short(run)}" for run in initialised[:50])]
    return lines


def parent_key(source: str) -> Key | None:
    """The trial of a weights file, STUDY/trials/ID/best.safetensors; None for other sources of weights."""
    parts = source.split("/")
    return (parts[-4], parts[-2]) if len(parts) >= 4 and parts[-3] == "trials" else None


def children(key: Key, snapshot: Snapshot) -> list[Run]:
    """The runs that took their initial weights from this one."""
    return [r for r in snapshot.runs if r.trial.weights is not None and parent_key(r.trial.weights.source) == key]


def _short(run: Run) -> str:
    row = run.row
    what = f"{row.arm}: {row.backbone}, {row.strategy} on {run.trial.dataset}"
    return f"{row.study}/{row.trial}  {what}  {text(row, 'accuracy')}"


def life(run: Run, now: float) -> str:
    """One line on the state of the run."""
    row = run.row
    words = [row.state]
    if run.began:
        words.append(f"began {time.strftime('%Y-%m-%d %H:%M', time.localtime(run.began))}")
    if not run.has_result and run.last:
        words.append(f"last sign {ago(now - run.last)}")
    if run.started is not None and not run.has_result:
        words.append(f"pid {run.started.pid} on {run.started.host}")
        if run.started.steps:
            words.append(f"step {run.step} of {run.started.steps}")
    if row.reason:
        words.append(row.reason)
    if row.archived:
        words.append("archived")
    if row.tags:
        words.append(f"tags {row.tags}")
    if row.note:
        words.append(f"note: {clean(row.note)}")
    if run.bad_lines:
        words.append(f"{run.bad_lines} unreadable lines in its log")
    return " · ".join(words)


def differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """The settings that differ between the runs, then results and costs: a name, and a value for each run."""
    fields = [flat(r.trial.model_dump(mode="json", exclude={"params", "schema_version", "number"})) for r in runs]
    rows: list[tuple[str, list[str]]] = []
    for key in dict.fromkeys(key for one in fields for key in one):
        values = [value_text(one.get(key)) for one in fields]
        if len(set(values)) > 1:
            rows.append((key, values))
    for key in (
        "state",
        "accuracy",
        "low",
        "high",
        "test",
        "gain",
        "loss",
        "epoch",
        "flops",
        "params",
        "trainable",
        "train_flops",
        "seconds",
        "speed",
        "memory",
        "energy",
        "latency",
    ):
        values = [text(r.row, key) for r in runs]
        if set(values) != {"-"}:
            rows.append((COLUMNS[key].title, values))
    return rows
