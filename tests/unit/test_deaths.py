"""How long a new child waits when children die again and again."""

import pytest

from worker.pool import FREE_DEATHS, MAX_WAIT_SECONDS, Deaths


def test_the_first_deaths_cost_no_time_and_each_further_one_doubles_the_wait_up_to_a_bound() -> None:
    deaths, waits = Deaths(), []
    for _ in range(FREE_DEATHS + 9):
        deaths.count(1)
        waits.append(deaths.wait_seconds)
    assert waits == [0.0] * FREE_DEATHS + [1, 2, 4, 8, 16, 32, 60, 60, 60]
    deaths.count(10_000)
    assert deaths.wait_seconds == MAX_WAIT_SECONDS


def test_a_job_that_ends_forgives_all_deaths() -> None:
    deaths = Deaths()
    deaths.count(50)
    assert deaths.last_job_at is None
    deaths.forget()
    assert deaths.wait_seconds == 0
    assert deaths.last_job_at is not None


def test_a_wait_is_said_with_its_reason_and_no_wait_is_not(caplog: pytest.LogCaptureFixture) -> None:
    deaths = Deaths()
    with caplog.at_level("WARNING", "facesieve"):
        deaths.count(FREE_DEATHS)
        deaths.count(0)
        assert not caplog.records
        deaths.count(2)
        deaths.count(0)
    assert [record.getMessage() for record in caplog.records] == [
        "4 children died and no job ended: the next one starts in 2 s"
    ]
