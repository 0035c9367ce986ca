"""The trials of a search: each is chosen by the search of its arm when there is room for it."""

from __future__ import annotations

from collections.abc import Mapping

from suite.execution.failures import FailureStreak, lost_record
from suite.execution.ledger import Ledger
from suite.execution.options import Options
from suite.execution.resolution import TrialResolver
from suite.search.pruning import Member, verdicts
from suite.search.sampler import Search
from suite.spec import Evaluated, Paused, Record, Trial
from suite.store.trial import TrialState


class SearchedTrials:
    """A `TrialSource` that asks the searches of a study's arms, up to each arm's number of trials.

    The trials of an arm are compared in batches, in the order of their numbers (`spec.Pruning.batch`).
    """

    def __init__(
        self, searches: Mapping[str, Search], resolver: TrialResolver, options: Options, ledger: Ledger
    ) -> None:
        """`ledger` has the trials of earlier runs."""
        self.searches, self.resolver, self.options = searches, resolver, options
        self.pruning = resolver.experiment.pruning
        self.planned = resolver.quota
        self._failures = FailureStreak()
        self._newest_arm = ""
        self._order: dict[str, list[str]] = {arm: [] for arm in self.planned}  # ids by arm, in the order of numbers
        self._place: dict[str, int] = {}  # of a trial in its arm
        for state in sorted(ledger.states.values(), key=lambda state: state.trial.number):
            self._append(state.trial.arm, state.id)

    def _append(self, arm: str, trial_id: str) -> None:
        order = self._order.setdefault(arm, [])
        self._place[trial_id] = len(order)
        order.append(trial_id)

    def next(self, ledger: Ledger) -> Trial | None:
        """A trial of the arm that has had the smallest part of its trials.

        In a population, trials of one arm are stacked, so there the newest arm goes on while any trial is running.
        """
        made = ledger.made
        open_arms = [name for name, quota in self.planned.items() if made[name] < quota]
        if not open_arms:
            return None
        arm = min(open_arms, key=lambda name: made[name] / self.planned[name])
        if self.options.population != 1 and ledger.running and self._newest_arm in open_arms:
            arm = self._newest_arm
        self._newest_arm = arm
        params = self.searches[arm].ask(made[arm])
        trial = self.resolver.trial(arm, params, ledger.next_number)
        self.searches[arm].register(trial.id, params)
        self._append(arm, trial.id)
        return trial

    def prunes(self, state: TrialState, event: Evaluated) -> bool:
        if event.epoch not in state.trial.rungs or self.resolver.experiment.pruner is None:
            return False
        return self.searches[state.trial.arm].should_prune(state.id, event.epoch, event.accuracy)

    def paused(self, state: TrialState, event: Paused) -> None:
        self.searches[state.trial.arm].report(state.id, event.epochs, event.accuracy)

    def judged(self, ledger: Ledger, changed: TrialState | None) -> list[tuple[TrialState, str | None]]:
        if self.pruning is None:
            return []
        if changed is not None:
            return self._judged(ledger, changed.trial.arm, self._place[changed.id] // self.pruning.batch)
        found: list[tuple[TrialState, str | None]] = []
        for arm, order in self._order.items():
            for number in range(-(-len(order) // self.pruning.batch)):
                found += self._judged(ledger, arm, number)
        return found

    def _judged(self, ledger: Ledger, arm: str, number: int) -> list[tuple[TrialState, str | None]]:
        """Of one batch of an arm."""
        assert self.pruning is not None
        first = number * self.pruning.batch
        size = min(self.pruning.batch, self.planned[arm] - first)
        batch = [ledger.states[i] for i in self._order[arm][first : first + self.pruning.batch] if i in ledger.states]
        if not any(map(ledger.is_paused, batch)):
            return []
        members = [_member(state, paused=ledger.is_paused(state)) for state in batch]
        found: list[tuple[TrialState, str | None]] = []
        for state, verdict in zip(batch, verdicts(members, self.pruning.factor, whole=len(batch) >= size), strict=True):
            if verdict == "wait":
                continue
            epochs, accuracy = state.rungs[-1]
            reason = (
                f"{accuracy:.4f} on validation after a complete training over {epochs:.3g} epochs is not among the "
                f"best 1 in {self.pruning.factor} of its batch"
            )
            found.append((state, None if verdict == "promote" else reason))
        return found

    def ended(self, state: TrialState, record: Record) -> str | None:
        self.searches[state.trial.arm].tell(record)
        return self._failures.add(record)

    def lost(self, state: TrialState, attempt: str, reason: str) -> Record:
        """The trial fails, and the search goes on."""
        return lost_record(state, attempt, reason, self.options)


def _member(state: TrialState, *, paused: bool) -> Member:
    """A trial as its batch sees it. A short training counts once the attempt is over that told of its end."""
    rungs = state.rungs if paused or state.state != "paused" else state.rungs[:-1]
    accuracies = tuple(accuracy for _, accuracy in rungs)
    return Member(len(state.trial.stages), accuracies, paused=paused, ended=state.record is not None)
