"""What the server counts, in Prometheus' format."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._make(Counter, "requests", "Requests answered.", ["endpoint", "code"])
        self.seconds = self._make(Histogram, "request_seconds", "Time to answer.", ["endpoint"], buckets=_SECONDS)
        self.batch_rows = self._make(Histogram, "batch_rows", "Rows in a model call.", buckets=(1, 2, 4, 8, 16, 32, 64))
        self.invalid = self._make(Counter, "invalid_images", "Images that could not be decoded.")
        self.waiting = self._make(Gauge, "waiting_rows", "Rows that wait for the model.")
        self.version = self._make(Gauge, "model_version", "The version that serves.")

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self.registry)

    def _make(self, kind: Any, name: str, text: str, labels: Sequence[str] = (), **settings: Any) -> Any:
        return kind(f"tf_detreg_{name}", text, labels, registry=self.registry, **settings)
