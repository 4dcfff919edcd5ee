"""What Prometheus is told: requests, how long they take, batches and inferences; of all workers together."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which several workers' figures lie; set before this module is imported."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one process, written out with those of the others."""

    def __init__(self, version: str) -> None:
        own = self._own = CollectorRegistry()
        self.requests = Counter("edgebench_requests", "Requests answered.", ("path", "status"), registry=own)
        self.seconds = Histogram("edgebench_request_seconds", "To the answer's end.", ("path",), buckets=SECONDS, registry=own)
        self.inference = Histogram("edgebench_inference_seconds", "Of a batch's inference.", buckets=SECONDS, registry=own)
        self.together = Histogram("edgebench_batch_pictures", "Pictures inferred together.", buckets=PICTURES, registry=own)
        self.working = Gauge(
            "edgebench_pictures_in_work", "Pictures worked on or waiting.", registry=own, multiprocess_mode="livesum"
        )
        model = Gauge("edgebench_model", "What is served.", ("version",), registry=own, multiprocess_mode="max")
        model.labels(version).set(1)

    def inferred(self, count: int, seconds: float) -> None:
        """Count a batch."""
        self.together.observe(count)
        self.inference.observe(seconds)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Write them in Prometheus' form."""
        if SHARED not in os.environ:
            return generate_latest(self._own)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
