"""Metrics: names, labels, and their bounds."""

from __future__ import annotations

from cloudless.telemetry import metrics
from cloudless.telemetry.metrics import Metrics


def test_calls_are_counted_by_method_and_code() -> None:
    found = Metrics()
    found.count_call("/cloudless.api.CoordinatorService/GetWorkload", "OK", 0.0004)
    found.count_call("/cloudless.api.CoordinatorService/GetWorkload", "NOT_FOUND", 0.002)
    text = found.text().decode()
    assert 'cloudless_requests_total{code="OK",method="GetWorkload"} 1.0' in text
    assert 'cloudless_requests_total{code="NOT_FOUND",method="GetWorkload"} 1.0' in text
    assert 'cloudless_request_seconds_bucket{le="0.0005",method="GetWorkload"} 1.0' in text
    assert 'cloudless_request_seconds_count{method="GetWorkload"} 2.0' in text


def test_a_scanner_cannot_make_metrics_without_bounds() -> None:
    found = Metrics()
    for number in range(metrics.MAX_METHODS + 50):
        found.count_call(f"/service/Method{number}", "UNIMPLEMENTED", 0.0)
    text = found.text().decode()
    assert text.count("cloudless_requests_total{") == metrics.MAX_METHODS + 1
    assert 'method="other"} 50.0' in text


def test_phases_that_nothing_is_in_are_zero() -> None:
    found = Metrics()
    found.set_phases(found.nodes, {"READY": 2}, ("READY", "LOST"))
    found.set_phases(found.nodes, {}, ("READY", "LOST"))
    text = found.text().decode()
    assert 'cloudless_nodes{phase="READY"} 0.0' in text
    assert 'cloudless_nodes{phase="LOST"} 0.0' in text


def test_two_instances_do_not_share() -> None:
    one, two = Metrics(), Metrics()
    one.conflicts.inc()
    assert b"cloudless_plan_conflicts_total 1.0" in one.text()
    assert b"cloudless_plan_conflicts_total 0.0" in two.text()
