"""What a study cost, what its best models cost to use, and the provenance of its figures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from suite.ranking.leaderboard import column
from suite.ranking.study_costs import Pretraining, StudyCosts, Total
from suite.reporting.document import Block, Section, Table, Text, known
from suite.reporting.facts import Facts
from suite.reporting.text import distinct, moment


def costs(facts: Facts) -> Section:
    found = facts.costs
    spent = [s.record.cost for s in facts.states if s.record and s.record.cost]
    rows = [_cells("the search, all trials", found.search)]
    rows += [_cells(f"trials {kind}", part) for kind, part in found.by_state.items()]
    rows += [_cells(f"trials of {arm}", part) for arm, part in found.by_arm.items()]
    beside = [_cells("finalists", found.finalists)] if found.finalists.trials else []
    beside += [_cells("final training", found.final)] if found.final.trials else []
    beside += [_cells(f"pretraining {one.weights}", one.cost) for one in found.pretraining if one.cost]
    shared = any(one.share for one in found.pretraining)
    if beside:
        rows += [*beside, _cells("in all" + (", with the shares of pretraining" if shared else ""), _sum(found))]
    counters, sources = {cost.flops_source for cost in spent}, Counter(cost.energy_source for cost in spent)
    lines = [
        f"FLOPs are counted ({', '.join(sorted(counters))}), a multiply-add as two; wall time is that of whole trials, "
        "training time that of the device in optimisation alone, without evaluation.",
        *map(_pretraining, found.pretraining),
        "Energy: " + ", ".join(f"{source} ({n} trials)" for source, n in sources.items()) + ".",
    ]
    if unknown := found.search.unknown:
        lines.append(f"{unknown} trials ended without a cost and are missing from the sums.")
    head = ("what", "trials", "wall time", "training", "FLOPs", "peak memory", "energy")
    blocks: list[Block] = [known(head, rows), *map(Text, lines)]
    if used := inference(facts):
        columns = ("arm", "trial", "parameters", "FLOPs an image", "one image", "256 images", "images/s")
        blocks.append(known(columns, used, "Inference of the best model of each arm, in fp32 where it was trained"))
    return Section("What it cost", blocks)


def _cells(name: str, found: Total) -> list[str]:
    shown = {
        "wall": found.wall_seconds,
        "seconds": found.train_seconds,
        "train_flops": found.flops,
        "memory": found.peak_memory_bytes,
    }
    energy = "-"
    if found.energy_joules is not None:
        energy = column("energy").text(found.energy_joules)
        if found.energy_trials < found.trials:
            energy += f" ({found.energy_trials} of {found.trials})"
    return [name, str(found.trials), *(column(key).text(value) for key, value in shown.items()), energy]


def _pretraining(one: Pretraining) -> str:
    """A sentence on weights that runs start or learn from."""
    if one.share is None:
        source = "published weights" if one.weights == "pretrained" else f"weights ({one.weights})"
        return f"{one.runs_here} runs use {source} whose own cost is not known here."
    share = column("wall").text(one.share.wall_seconds)
    return (
        f"{one.runs} runs use {one.weights}, {one.runs_here} of them in this study: its share of that "
        f"pretraining is {share} and {column('train_flops').text(one.share.flops)} FLOPs."
    )


def _sum(found: StudyCosts) -> Total:
    """Search, new trainings and the shares of pretraining."""
    trained = (found.search, found.finalists, found.final)
    parts = [*trained, *(one.share for one in found.pretraining if one.share)]
    energies = [part.energy_joules for part in parts if part.energy_joules is not None]
    return Total(
        trials=sum(part.trials for part in trained),
        wall_seconds=sum(part.wall_seconds for part in parts),
        train_seconds=sum(part.train_seconds for part in parts),
        flops=sum(part.flops for part in parts),
        energy_joules=sum(energies) if energies else None,
        energy_trials=sum(part.energy_trials for part in trained),
        peak_memory_bytes=max(part.peak_memory_bytes for part in trained),
    )


def inference(facts: Facts) -> list[list[str]]:
    """What the best model of each arm costs to use."""
    records = {s.id: s.record for s in facts.states}
    rows: list[list[str]] = []
    for arm in facts.arms:
        best = facts.best(arm)
        record = records.get(best.trial) if best else None
        if record is None or record.cost is None:
            continue
        cost, seconds = record.cost, column("latency").text
        many = cost.latency_256_seconds
        rows.append(
            [
                arm,
                record.trial[:4],
                column("params").text(cost.parameters),
                column("flops").text(cost.forward_flops),
                seconds(cost.latency_seconds) if cost.latency_seconds is not None else "-",
                seconds(many) if many is not None else "-",
                column("speed").text(256 / many) if many else "-",
            ]
        )
    return rows


def provenance(facts: Facts) -> Section:
    study = facts.study
    made = [s.record.provenance for s in facts.states if s.record and s.record.provenance]
    finalists = facts.evaluation.finalists if facts.evaluation else ()
    rows = [
        ["study", study.study],
        ["began", moment(study.created)],
        ["code", distinct([f"{p.version} ({p.commit or 'no commit'})" for p in made])],
        ["command", distinct([p.command for p in made])],
        ["hardware", distinct([f"{p.hardware}, {p.threads} threads" for p in made])],
        ["arithmetic", distinct([p.precision for p in made])],
        ["Python", distinct([p.python for p in made])],
        ["packages", ", ".join(f"{k} {v}" for k, v in study.packages.items())],
        ["seed of the search", distinct([str(s.trial.seed) for s in facts.states])],
        ["seeds of the final training", distinct([str(seed) for row in finalists for seed in row.seeds])],
        ["training data, SHA-256", study.data_hash],
        ["test data, SHA-256", distinct([row.test_sha256 for row in finalists])],
        ["split, SHA-256", distinct([p.split_sha256 or study.split_hash for p in made])],
        ["weights", distinct([f"{_place(p.weights)} ({(p.weights_sha256 or '')[:12]})" for p in made if p.weights])],
    ]
    rows = [row for row in rows if row[1] != "-"]
    first = facts.states[0].id[:4] if facts.states else "0000"
    note = f"Any trial can be repeated and compared: mnist-suite rerun {study.study}/{first}"
    return Section("Provenance", [Table(("what", "which"), rows), Text(note)])


def _place(weights: str) -> str:
    """STUDY/TRIAL for the weights of a trial, wherever the results are; other sources unchanged."""
    parts = Path(weights).parts
    return "/".join((parts[-4], parts[-2])) if len(parts) >= 4 and parts[-3] == "trials" else weights
