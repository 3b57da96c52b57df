"""The service's metrics with their kinds, as rules and dashboard may use them: `serve/metrics.py`'s, once it exists."""

METRICS = {
    "nanoswap_waiting": "gauge",
    "nanoswap_work_seconds": "gauge",
    "nanoswap_slots": "gauge",
    "nanoswap_running": "gauge",
    "nanoswap_workers": "gauge",
    "nanoswap_wait_seconds": "histogram",
    "nanoswap_eta_covered_total": "counter",
    "nanoswap_eta_quoted_total": "counter",
    "nanoswap_grants_total": "counter",
    "nanoswap_no_shows_total": "counter",
    "nanoswap_tickets_total": "counter",
    "nanoswap_stage_seconds": "histogram",
    "nanoswap_busy_seconds_total": "counter",
    "nanoswap_prove_timestamp_seconds": "gauge",
    "nanoswap_prove_passed": "gauge",
    "nanoswap_gate_refusals_total": "counter",
    "nanoswap_http_requests_total": "counter",
    "nanoswap_jwks_age_seconds": "gauge",
}
#: Of Prometheus itself and of its blackbox exporter.
FOREIGN = {"up", "probe_success", "probe_ssl_earliest_cert_expiry"}
HISTOGRAM_SERIES = ("_bucket", "_sum", "_count")


def series() -> set[str]:
    """Every name under which Prometheus stores something of ours."""
    found = set()
    for name, kind in METRICS.items():
        found |= {name + end for end in HISTOGRAM_SERIES} if kind == "histogram" else {name}
    return found
