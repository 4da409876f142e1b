"""The native gateway's figures for the metrics page."""

from __future__ import annotations

from gateways.native.counters import Counters
from node.exposition import Metric, Page

CONNECTIONS = Metric("native_connections", "gauge", "Clients connected now.")
ACCEPTED = Metric("native_connections_accepted_total", "counter", "Connections that were taken.")
REFUSED = Metric("native_connections_refused_total", "counter", "Connections beyond the limit.")
STALLED = Metric("native_connections_stalled_total", "counter", "Connections cut off since they took nothing.")
LATE = Metric("native_handshakes_late_total", "counter", "Connections that did not say HELLO in time.")
RECEIVED = Metric("native_received_bytes_total", "counter", "Bytes that clients sent.")
SENT = Metric("native_sent_bytes_total", "counter", "Bytes that clients were sent.")
PUBLISHES = Metric("native_publishes_total", "counter", "PUBLISH requests.")
PUBLISH_BYTES = Metric("native_publish_bytes_total", "counter", "Bytes of published batches.")
FETCHES = Metric("native_fetches_total", "counter", "FETCH requests.")
FETCHED = Metric("native_fetched_records_total", "counter", "Records given out for FETCH requests.")
DELIVERIES = Metric("native_deliveries_total", "counter", "DELIVER frames.")
DELIVERED = Metric("native_delivered_records_total", "counter", "Records delivered to consumers.")
SETTLES = Metric("native_settles_total", "counter", "SETTLE requests.")
ERRORS = Metric("native_errors_total", "counter", "ERROR answers.", ("code",))
DEFECTS = Metric("native_defects_total", "counter", "Requests that failed in a way nobody expected; see the log.")


def put(page: Page, counters: Counters) -> None:
    """All of them."""
    page.put(CONNECTIONS, counters.connections_now)
    page.put(ACCEPTED, counters.connections_accepted)
    page.put(REFUSED, counters.connections_refused)
    page.put(STALLED, counters.connections_stalled)
    page.put(LATE, counters.handshakes_late)
    page.put(RECEIVED, counters.bytes_received)
    page.put(SENT, counters.bytes_sent)
    page.put(PUBLISHES, counters.publishes)
    page.put(PUBLISH_BYTES, counters.publish_bytes)
    page.put(FETCHES, counters.fetches)
    page.put(FETCHED, counters.records_fetched)
    page.put(DELIVERIES, counters.deliveries)
    page.put(DELIVERED, counters.records_delivered)
    page.put(SETTLES, counters.settles)
    for code, count in counters.errors_by_code.items():
        page.put(ERRORS, count, code)
    page.put(DEFECTS, counters.defects)
