"""Messages posted by other threads. A new message replaces a waiting one of its kind."""

from __future__ import annotations

from textual.message import Message

from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot


class Polled(Message):
    """The feed has read the results directory, or has failed to, for the reason `problem`."""

    def __init__(self, snapshot: Snapshot, details: dict[Key, Detail], problem: str | None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.details = details
        self.problem = problem

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Polled)


class Predicted(Message):
    """The predictor has answered: the predicted label, and the probability of each label."""

    def __init__(self, label: str, probabilities: dict[str, float]) -> None:
        super().__init__()
        self.label = label
        self.probabilities = probabilities

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Predicted)
