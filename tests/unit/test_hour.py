"""What the operators' hour makes of histograms."""

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.hour import Bucket, counted, quantile


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 0.1), (0.25, 0.15), (0.5, 0.2), (0.75, 0.6), (0.9, 0.84), (0.95, 1.0), (1.0, 1.0)]
)
def test_a_quantile_lies_between_the_bounds_of_its_bucket(share: float, value: float) -> None:
    """Beyond the highest bound it is that."""
    buckets = [Bucket(0.1, 0.2, 10), Bucket(0.2, 1.0, 10), Bucket(1.0, math.inf, 0)]
    if share >= 0.95:
        buckets = [Bucket(0.1, 0.2, 1), Bucket(1.0, math.inf, 9)]
    assert quantile(buckets, share) == pytest.approx(value)


def test_what_is_counted_is_what_is_in_each_bucket_by_itself() -> None:
    registry = CollectorRegistry()
    first = Histogram("rejoin_ttft_seconds", "-", buckets=(0.001, 0.05, 2.5), registry=registry)
    jobs = Counter("rejoin_jobs", "-", ["status", "code"], registry=registry)
    Histogram("rejoin_other_seconds", "-", buckets=(1,), registry=registry).observe(1)
    for value in (0.0005, 0.01, 0.02, 9):
        first.observe(value)
    jobs.labels("completed", "").inc(3)
    jobs.labels("failed", "worker_lost").inc()
    jobs.labels("failed", "idle_timeout").inc(2)
    assert +counted(registry) == {
        "ttft:0:0.001": 1, "ttft:0.001:0.05": 2, "ttft:2.5:inf": 1,
        "completed": 3, "failed:worker_lost": 1, "failed:idle_timeout": 2,
    }  # fmt: skip


def test_a_process_that_measures_nothing_counts_nothing() -> None:
    assert counted(CollectorRegistry()) == {}
