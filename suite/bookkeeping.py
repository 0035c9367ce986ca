"""The report's last sections: what a study cost, and where its figures come from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from suite import leaderboard
from suite.blocks import Block, Facts, Section, Table, Text
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
        energy = "-" if joules is None else leaderboard.column("energy").text(joules)
        if joules is not None and found["energy_trials"] < found["trials"]:
            energy += f" ({found['energy_trials']} of {found['trials']})"
        return [name, str(found["trials"]), *(leaderboard.column(k).text(v) for k, v in shown.items()), energy]

    found = facts.costs
    rows = [cells("the search, all trials", found["search"])]
    rows += [cells(f"of which {kind}", part) for kind, part in found["by_state"].items()]
    rows += [cells(f"of which {arm}", part) for arm, part in found["by_arm"].items()]
    if found["final"]["trials"]:
        rows.append(cells("final training", found["final"]))
    lines: list[str] = []
    for one in found["pretraining"]:
        if one["cost"] is None:
            lines.append(
                f"{one['runs_here']} runs stand on weights ({one['weights']}) whose own cost is not known here."
            )
            continue
        rows.append(cells(f"pretraining {one['weights']}", one["cost"]))
        share = leaderboard.column("wall").text(one["share"]["wall_seconds"])
        lines.append(
            f"{one['runs']} runs stand on {one['weights']}, {one['runs_here']} of them in this study: its share of "
            f"that pretraining is {share} and {leaderboard.column('train_flops').text(one['share']['flops'])} FLOPs."
        )
    sources = Counter(s.record.cost.energy_source for s in facts.states if s.record and s.record.cost)
    lines.append("Energy: " + ", ".join(f"{source} ({n} trials)" for source, n in sources.items()) + ".")
    if unknown := found["search"]["unknown"]:
        lines.append(f"{unknown} trials ended without a cost and are missing from the sums.")
    head = ("what", "trials", "wall time", "training", "FLOPs", "peak memory", "energy")
    blocks: list[Block] = [Table(head, rows), *map(Text, lines)]
    if used := inference(facts):
        columns = ("arm", "trial", "parameters", "FLOPs an image", "one image", "256 images", "images/s")
        blocks.append(Table(columns, used, "Using the best model of each arm, in fp32 where it was trained"))
    return Section("What it cost", blocks)


def inference(facts: Facts) -> list[list[str]]:
    """What the best model of each arm takes to answer."""
    records = {s.id: s.record for s in facts.states}
    rows: list[list[str]] = []
    for arm in facts.arms:
        best = facts.best(arm)
        record = records.get(best.trial) if best else None
        if record is None or record.cost is None:
            continue
        cost, seconds = record.cost, leaderboard.column("latency").text
        many = cost.latency_256_seconds
        rows.append(
            [
                arm,
                record.trial[:4],
                leaderboard.column("params").text(cost.parameters),
                leaderboard.column("flops").text(cost.forward_flops),
                seconds(cost.latency_seconds) if cost.latency_seconds is not None else "-",
                seconds(many) if many is not None else "-",
                leaderboard.column("speed").text(256 / many) if many else "-",
            ]
        )
    return rows


def provenance(facts: Facts) -> Section:
    records: list[Record] = [s.record for s in facts.states if s.record is not None]
    made = [r.provenance for r in records if r.provenance is not None]

    def every(values: Sequence[str | None]) -> str:
        return ", ".join(dict.fromkeys(v for v in values if v)) or "-"

    rows = [
        ["study", facts.study.study],
        ["began", time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.study.created))],
        ["code", every([f"{p.version} ({p.commit or 'no commit'})" for p in made])],
        ["command", every([p.command for p in made])],
        ["hardware", every([f"{p.hardware}, {p.threads} threads" for p in made])],
        ["arithmetic", every([p.precision for p in made])],
        ["Python", every([p.python for p in made])],
        ["packages", ", ".join(f"{k} {v}" for k, v in facts.study.packages.items())],
        ["seeds", every([str(s.trial.seed) for s in facts.states])],
        ["data, SHA-256", facts.study.data_hash],
        ["split, SHA-256", facts.study.split_hash],
        ["weights", every([f"{p.weights} ({(p.weights_sha256 or '')[:12]})" for p in made if p.weights])],
    ]
    first = facts.states[0].id[:4] if facts.states else "0000"
    note = f"Any trial can be repeated and compared: mnist-suite rerun {facts.study.study}/{first}"
    return Section("Provenance", [Table(("what", "which"), rows), Text(note)])
