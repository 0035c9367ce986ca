"""What arrives from other threads. The newest of a kind replaces those still waiting."""

from __future__ import annotations

from textual.message import Message

from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot


class Polled(Message):
    """The feed has looked at the results directory."""

    def __init__(self, snapshot: Snapshot, details: dict[Key, Detail], problem: str | None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.details = details
        self.problem = problem

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Polled)


class Predicted(Message):
    """The predictor answered: label -> probability."""

    def __init__(self, label: str, probabilities: dict[str, float]) -> None:
        super().__init__()
        self.label = label
        self.probabilities = probabilities

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Predicted)
