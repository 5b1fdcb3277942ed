"""What a server counts, for Prometheus. Each application has a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from mmrec.serving.live import LiveExport

__all__ = ["ServerMetrics"]

# From a search by item, well below a millisecond of computing, to a long clip.
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ServerMetrics:
    """Counters of one application.

    Args:
        live: whose export and reloads are told.
    """

    def __init__(self, live: LiveExport) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "mmrec_requests", "Requests, by route and status.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "mmrec_request_seconds",
            "Seconds from the end of a request's header to the end of its answer.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.in_flight = Gauge("mmrec_requests_in_flight", "Requests not yet answered.", registry=self._registry)
        self._registry.register(_ExportCollector(live))

    def text(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _ExportCollector(Collector):
    """Reads off what is served at the moment of asking."""

    def __init__(self, live: LiveExport) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        current = self._live.current
        labels = {"export": current.identity, "model": current.engine.export.manifest["model_hash"]}
        served = GaugeMetricFamily("mmrec_export_items", "Items of the export that is served.", labels=list(labels))
        served.add_metric(list(labels.values()), current.engine.export.num_items)
        yield served
        yield GaugeMetricFamily("mmrec_reloads", "Exports that took the place of another.", self._live.num_reloads)
        failed = float(self._live.error is not None)
        yield GaugeMetricFamily("mmrec_reload_failed", "1 if the last new export could not be used.", failed)
