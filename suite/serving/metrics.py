"""What a server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """Counters and histograms of one server, and figures of its process."""

    def __init__(self, queue: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("mnist_suite_requests", "Requests, by code.", ["code"], registry=self.registry)
        self._codes: dict[int, Counter] = {}
        self._seconds = Histogram(
            "mnist_suite_request_seconds", "Time to answer a prediction.", buckets=SECONDS, registry=self.registry
        )
        self._batch = Histogram(
            "mnist_suite_batch_pictures", "Pictures predicted together.", buckets=PICTURES, registry=self.registry
        )
        waiting = Gauge("mnist_suite_queue_pictures", "Pictures under way.", registry=self.registry)
        waiting.set_function(queue)
        self._model = Info("mnist_suite_model", "The model that answers.", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self.batch = self._batch.observe
        self.seconds = self._seconds.observe

    def model(self, **facts: str) -> None:
        self._model.info(facts)

    def request(self, code: int) -> None:
        if (counter := self._codes.get(code)) is None:
            counter = self._codes[code] = self._requests.labels(str(code))
        counter.inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
