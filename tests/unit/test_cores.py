"""A worker counts the cores that it may use, not those of the machine."""

import os
from pathlib import Path

import pytest

from worker.cores import usable_cores

MANY = set(range(64))


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("9900000 100000", 64)],
)
def test_the_share_of_a_container_counts(limit: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 64)])
def test_the_share_of_a_container_counts_with_the_older_cgroups_too(quota: str, cores: int, tmp_path: Path) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("limit", [None, "", "nonsense", "1 2 3", "100 0"])
def test_without_a_limit_that_can_be_read_the_affinity_counts(limit: str | None, tmp_path: Path) -> None:
    if limit is not None:
        (tmp_path / "cpu.max").write_text(limit)
    assert usable_cores(tmp_path) == 64
