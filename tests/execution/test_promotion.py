"""A search whose trials are judged in batches comes out the same, whatever befalls its attempts and its controller.

Real trainings of a few images, which advance event by event in an order drawn at random.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.execution.attempt import Attempt
from suite.execution.job import Job, Message
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.spec import Arm, Experiment, LogFloat, Paused, Pruning, Recipe, Status
from suite.store.study import StudyDir

RECIPE = Recipe(epochs=6, batch_size=32, lr=0.05, schedule="cosine", precision="fp32")
Print = dict[str, tuple[Any, ...]]


def question(trials: int) -> Experiment:
    return Experiment(
        name="small",
        question="Does the order matter?",
        dataset="mnist",
        arms={"a": Arm(backbone="net", recipe=RECIPE), "b": Arm(backbone="net", recipe=RECIPE, fraction=0.8)},
        space={"lr": LogFloat(low=1e-3, high=0.1)},
        pruning=Pruning(first=1, factor=2, batch=4),  # short trainings over 1, 2 and 4 epochs
        trials=trials,
        limit=60,
    )


class Shaken:
    """Advances its attempts in any order, and loses some. Counts the trainings that began while slots were to spare."""

    threads = 1

    def __init__(self, slots: int, chance: random.Random, planned: int, loss: float) -> None:
        self.slots, self.chance, self.planned, self.loss = slots, chance, planned, loss
        self.at_work: dict[str, tuple[Job, Attempt]] = {}
        self.seen: set[str] = set()  # trials
        self.idle = 0  # polls with a free slot while there were trials to begin
        self.losses: Counter[str] = Counter()
        self.told: set[str] = set()  # whose attempt is about to end with a pause

    def free(self) -> int:
        return self.slots - len(self.at_work)

    def submit(self, job: Job) -> None:
        assert job.trial_id not in self.at_work, "two attempts at one trial"
        self.seen.add(job.trial_id)
        self.at_work[job.trial_id] = (job, Attempt(job))

    def poll(self, timeout: float) -> list[Message]:
        """One or several messages, each of another attempt, as from worker processes."""
        self.idle += self.free() > 0 and len(self.seen) < self.planned
        chosen = self.chance.sample(sorted(self.at_work), self.chance.randint(1, len(self.at_work)))
        lingering = [i for i in chosen if i in self.told and self.chance.random() < 0.7]  # others may end meanwhile
        return [self._advance(trial_id) for trial_id in chosen if trial_id not in lingering]

    def _advance(self, trial_id: str) -> Message:
        job, attempt = self.at_work[trial_id]
        if self.chance.random() < self.loss and self.losses[trial_id] < 2:  # at the third the trial fails
            self.losses[trial_id] += 1
            attempt.close()
            del self.at_work[trial_id]
            return Message(trial_id, job.attempt, lost="its worker was killed")
        event = attempt.advance(None)
        if isinstance(event, Paused) and self.chance.random() < self.loss:  # known to its log alone
            self.losses[trial_id] = 0
            attempt.close()
            del self.at_work[trial_id]
            return Message(trial_id, job.attempt, lost="its worker was killed")
        self.told.discard(trial_id)
        if isinstance(event, Paused):
            self.told.add(trial_id)
        if event is None:
            del self.at_work[trial_id]
        return Message(trial_id, job.attempt, event)

    def reply(self, trial_id: str, verdict: object) -> None:
        return None

    def close(self) -> None:
        for _, attempt in self.at_work.values():
            attempt.close()
        self.at_work.clear()


def fingerprint(results: Path) -> Print:
    found: Print = {}
    for state in StudyDir(results, "small").states():
        record = state.record
        assert record is not None, state
        assert record.cost is not None
        found[state.id] = (
            record.model_dump(exclude={"attempt", "cost", "provenance", "started", "ended"}),
            record.cost.training_flops,
        )
    return found


def run(results: Path, trials: int, executor: Shaken | None = None, *, until: int = 10**9) -> bool:
    """Run or resume the study, and break off after so many messages of its controller; returns whether it ended."""
    options = Options(device="cpu", resume=True)
    running = sweep(question(trials), results, options=options, stop=Stop(), executor=executor)  # type: ignore[arg-type]
    seen: list[Status] = []
    for status in running:
        seen.append(status)
        if len(seen) > until:
            running.close()  # type: ignore[attr-defined]
            return False
    status = seen[-1]
    assert status.state == "done", status
    assert status.finished + status.pruned == status.planned == trials
    assert status.paused == 0
    assert len(StudyDir(results, "small").states()) == trials
    return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Print, Print]:
    """The study with ten trials, and with two more after it had come to its end."""
    results = tmp_path_factory.mktemp("undisturbed")
    run(results, 10)
    first = fingerprint(results)
    run(results, 12)
    return first, fingerprint(results)


def test_the_best_of_every_batch_go_on_and_nothing_changes_afterwards(undisturbed: tuple[Print, Print]) -> None:
    first, more = undisturbed
    assert {trial: more[trial] for trial in first} == first  # the last batch of each arm has become larger meanwhile
    for found, sizes in ((first, (4, 1)), (more, (4, 2))):
        for arm in ("a", "b"):
            records = [record for record, _ in found.values() if record["arm"] == arm]
            assert len(records) == sum(sizes)
            batch = records[: sizes[0]]
            ways = Counter((record["state"], len(record["rungs"])) for record in batch)
            assert ways == {("pruned", 1): 2, ("pruned", 2): 1, ("finished", 3): 1}
            places = sorted(batch, key=lambda record: -record["rungs"][0][1])
            assert {len(record["rungs"]) for record in places[2:]} == {1}
    assert {record["curve"][-1][0] for record, _ in first.values()} == {1.0, 2.0, 6.0}


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_out_the_same_with_any_workers_and_after_any_loss(
    undisturbed: tuple[Print, Print], tmp_path: Path, seed: int, hurt: Callable[..., None]
) -> None:
    """Attempts are lost, and the controller breaks off, at any event; files of unfinished trials are damaged."""
    chance = random.Random(seed)
    directory = StudyDir(tmp_path, "small")
    for trials, wanted in zip((10, 12), undisturbed, strict=True):
        ended = False
        while not ended:
            executor = Shaken(chance.randint(1, 4), chance, trials, loss=0.03)
            executor.seen |= {place.id for place in directory.trials()}
            ended = run(tmp_path, trials, executor, until=chance.randint(10, 120))
            assert not executor.idle  # a trial that pauses makes room
            unfinished = [state for state in directory.states() if state.record is None]
            for state in chance.sample(unfinished, min(1, len(unfinished))):
                name = chance.choice(["checkpoint.json", "events.jsonl", "last.safetensors"])
                path = directory.trial(state.id).path / name
                if path.exists():
                    hurt(path, chance.choice(["truncate", "flip"]), chance)
        assert fingerprint(tmp_path) == wanted


def test_a_user_ends_single_trials_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.execution.controller.REQUEST_SECONDS", 0.0)
    directory = StudyDir(tmp_path, "small")
    asked: dict[str, str] = {}  # trials by the state in which they are asked to end
    for _ in sweep(question(8), tmp_path, options=Options(device="cpu"), stop=Stop()):
        for state in directory.states():
            if state.state in ("running", "paused") and state.state not in asked and state.id not in asked.values():
                asked[state.state] = state.id
                directory.trial(state.id).request_stop(f"enough of what is {state.state}")
    records = {state.id: state.record for state in directory.states()}
    for was, trial_id in asked.items():
        record = records[trial_id]
        assert record is not None and record.state == "pruned" and record.reason is not None
        assert record.reason.endswith(f"stopped: enough of what is {was}")
        assert record.cost is not None and record.accuracy is not None
        assert not (directory.trial(trial_id).path / "checkpoint.json").exists()
    assert set(asked) == {"running", "paused"} and None not in records.values()
    assert Counter(record.state for record in records.values() if record)["finished"] == 2
