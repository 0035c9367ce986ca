"""The trials of a search: each is chosen by the sampler of its arm when there is room for it."""

from __future__ import annotations

from collections.abc import Mapping

from suite.execution.failures import FailureStreak, lost_record
from suite.execution.ledger import Ledger
from suite.execution.options import Options
from suite.execution.resolution import TrialResolver
from suite.search.sampler import Search
from suite.spec import Evaluated, Record, Trial
from suite.store.trial import TrialState


class SearchedTrials:
    """A `TrialSource` that asks the searches of a study's arms, up to each arm's number of trials."""

    def __init__(self, searches: Mapping[str, Search], resolver: TrialResolver, options: Options) -> None:
        self.searches, self.resolver, self.options = searches, resolver, options
        self.planned = resolver.quota
        self._failures = FailureStreak()
        self._newest_arm = ""

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
        asked, params = self.searches[arm].ask(made[arm])
        trial = self.resolver.trial(arm, params, ledger.next_number)
        self.searches[arm].register(asked, trial.id)
        return trial

    def prunes(self, state: TrialState, event: Evaluated) -> bool:
        if event.epoch not in state.trial.rungs:
            return False
        return self.searches[state.trial.arm].should_prune(state.id, event.epoch, event.accuracy)

    def ended(self, state: TrialState, record: Record) -> str | None:
        self.searches[state.trial.arm].tell(record, state.trial.params)
        return self._failures.add(record)

    def lost(self, state: TrialState, attempt: str, reason: str) -> Record:
        """The trial fails, and the search goes on."""
        return lost_record(state, attempt, reason, self.options)
