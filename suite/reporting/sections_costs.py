"""The report's last sections: what a study cost, and where its figures come from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.ranking import leaderboard as board
from suite.reporting.document import Block, Facts, Section, Table, Text, known
from suite.spec import Record


def costs(facts: Facts) -> Section:
    def cells(name: str, found: Mapping[str, Any]) -> list[str]:
        joules = found["energy_joules"]
        shown = {
            "wall": found["wall_seconds"],
            "seconds": found["train_seconds"],
            "train_flops": found["flops"],
            "memory": found["peak_memory_bytes"],
        }
        energy = "-" if joules is None else board.column("energy").text(joules)
        if joules is not None and found["energy_trials"] < found["trials"]:
            energy += f" ({found['energy_trials']} of {found['trials']})"
        return [name, str(found["trials"]), *(board.column(k).text(v) for k, v in shown.items()), energy]

    found = facts.costs
    spent = [s.record.cost for s in facts.states if s.record and s.record.cost]
    counters = {cost.flops_source for cost in spent}
    rows = [cells("the search, all trials", found["search"])]
    rows += [cells(f"trials {kind}", part) for kind, part in found["by_state"].items()]
    rows += [cells(f"trials of {arm}", part) for arm, part in found["by_arm"].items()]
    if found["final"]["trials"]:
        rows.append(cells("final training", found["final"]))
    lines = [
        f"FLOPs are counted ({', '.join(sorted(counters))}), a multiply-add as two; wall time is that of whole trials, "
        "training time that of the device in optimisation alone, with no evaluation in it."
    ]
    for one in found["pretraining"]:
        if one["cost"] is None:
            source = "published weights" if one["weights"] == "pretrained" else f"weights ({one['weights']})"
            lines.append(f"{one['runs_here']} runs start from {source} whose own cost is not known here.")
            continue
        rows.append(cells(f"pretraining {one['weights']}", one["cost"]))
        share = board.column("wall").text(one["share"]["wall_seconds"])
        lines.append(
            f"{one['runs']} runs stand on {one['weights']}, {one['runs_here']} of them in this study: its share of "
            f"that pretraining is {share} and {board.column('train_flops').text(one['share']['flops'])} FLOPs."
        )
    if len(rows) > 1 + len(found["by_state"]) + len(found["by_arm"]):
        rows.append(cells("in all, with the shares of pretraining", _all(found)))
    sources = Counter(cost.energy_source for cost in spent)
    lines.append("Energy: " + ", ".join(f"{source} ({n} trials)" for source, n in sources.items()) + ".")
    if unknown := found["search"]["unknown"]:
        lines.append(f"{unknown} trials ended without a cost and are missing from the sums.")
    head = ("what", "trials", "wall time", "training", "FLOPs", "peak memory", "energy")
    blocks: list[Block] = [known(head, rows), *map(Text, lines)]
    if used := inference(facts):
        columns = ("arm", "trial", "parameters", "FLOPs an image", "one image", "256 images", "images/s")
        blocks.append(known(columns, used, "Using the best model of each arm, in fp32 where it was trained"))
    return Section("What it cost", blocks)


def _all(found: Mapping[str, Any]) -> dict[str, Any]:
    """Search, final training and the shares of what they stand on, added up."""
    parts = [found["search"], found["final"], *(one["share"] for one in found["pretraining"] if one["share"])]
    energies = [part["energy_joules"] for part in parts if part["energy_joules"] is not None]
    return {
        **{key: sum(part[key] for part in parts) for key in ("wall_seconds", "train_seconds", "flops")},
        **{key: found["search"][key] + found["final"][key] for key in ("trials", "energy_trials")},
        "peak_memory_bytes": max(found["search"]["peak_memory_bytes"], found["final"]["peak_memory_bytes"]),
        "energy_joules": sum(energies) if energies else None,
    }


def inference(facts: Facts) -> list[list[str]]:
    """What the best model of each arm takes to answer."""
    records = {s.id: s.record for s in facts.states}
    rows: list[list[str]] = []
    for arm in facts.arms:
        best = facts.best(arm)
        record = records.get(best.trial) if best else None
        if record is None or record.cost is None:
            continue
        cost, seconds = record.cost, board.column("latency").text
        many = cost.latency_256_seconds
        rows.append(
            [
                arm,
                record.trial[:4],
                board.column("params").text(cost.parameters),
                board.column("flops").text(cost.forward_flops),
                seconds(cost.latency_seconds) if cost.latency_seconds is not None else "-",
                seconds(many) if many is not None else "-",
                board.column("speed").text(256 / many) if many else "-",
            ]
        )
    return rows


def provenance(facts: Facts) -> Section:
    records: list[Record] = [s.record for s in facts.states if s.record is not None]
    made = [r.provenance for r in records if r.provenance is not None]

    def every(values: Sequence[str | None]) -> str:
        return ", ".join(dict.fromkeys(v for v in values if v)) or "-"

    finalists = facts.outcome["finalists"] if facts.outcome else []
    rows = [
        ["study", facts.study.study],
        ["began", time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.study.created))],
        ["code", every([f"{p.version} ({p.commit or 'no commit'})" for p in made])],
        ["command", every([p.command for p in made])],
        ["hardware", every([f"{p.hardware}, {p.threads} threads" for p in made])],
        ["arithmetic", every([p.precision for p in made])],
        ["Python", every([p.python for p in made])],
        ["packages", ", ".join(f"{k} {v}" for k, v in facts.study.packages.items())],
        ["seed of the search", every([str(s.trial.seed) for s in facts.states])],
        ["seeds of the final training", every([str(seed) for row in finalists for seed in row["seeds"]])],
        ["training data, SHA-256", facts.study.data_hash],
        ["test data, SHA-256", every([row.get("test_sha256") for row in finalists])],
        ["split, SHA-256", every([p.split_sha256 or facts.study.split_hash for p in made])],
        ["weights", every([f"{_place(p.weights)} ({(p.weights_sha256 or '')[:12]})" for p in made if p.weights])],
    ]
    rows = [row for row in rows if row[1] != "-"]
    first = facts.states[0].id[:4] if facts.states else "0000"
    note = f"Any trial can be repeated and compared: mnist-suite rerun {facts.study.study}/{first}"
    return Section("Provenance", [Table(("what", "which"), rows), Text(note)])


def _place(weights: str) -> str:
    """Weights of a trial by its study and name, wherever the results lie; others as they are."""
    parts = Path(weights).parts
    return "/".join((parts[-4], parts[-2])) if len(parts) >= 4 and parts[-3] == "trials" else weights
