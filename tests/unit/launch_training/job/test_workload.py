"""Kueue's answers about one job, one after the other -> whether it is given up; no cluster and no clock is needed for that."""

import pytest

from components.launch_training.job.kinds import PYTORCHJOB
from components.launch_training.job.workload import HOPELESS_S, NO_WORKLOAD_S, NOT_ASKED, Queueing, QueueWatch

HOURS_S = 4 * 3600.0


def answer(message: str, reason: str = "Pending", status: str = "False") -> Queueing:
    condition = {"type": "QuotaReserved", "status": status, "reason": reason, "message": message}
    return Queueing(workload={"status": {"conditions": [condition]}})


WAITS = answer("couldn't assign flavors to pod set node: insufficient unused quota for cpu in flavor pool, 1 more needed")
INACTIVE = answer("ClusterQueue hagane is inactive", "Inadmissible")
NO_QUEUE = answer("LocalQueue gpus doesn't exist", "Inadmissible")
NO_WORKLOAD, NO_KUEUE, UNREAD = Queueing(), Queueing(no_kueue=True), Queueing(unread="it may not")


def given_up(*answers: tuple[float, Queueing], is_new: bool = True) -> list[bool]:
    """Whether the job is given up at each of these times, in seconds."""
    watch = QueueWatch(PYTORCHJOB, is_new=is_new)
    return [watch.why_never("gpus", found, now_s=at_s) is not None for at_s, found in answers]


@pytest.mark.parametrize(("found", "believed_after_s"), [(INACTIVE, HOPELESS_S), (NO_KUEUE, HOPELESS_S), (NO_WORKLOAD, NO_WORKLOAD_S)])
def test_an_answer_without_hope_counts_from_when_it_came(found: Queueing, believed_after_s: float) -> None:
    at_s = HOURS_S
    assert given_up(
        (0, NOT_ASKED), (at_s, found), (at_s + believed_after_s - 1, found), (at_s + believed_after_s + 1, found)
    ) == [False, False, False, True]  # fmt: skip


@pytest.mark.parametrize("other", [NO_WORKLOAD, UNREAD, NO_QUEUE, NOT_ASKED])
def test_any_other_answer_starts_the_time_anew(other: Queueing) -> None:
    found = given_up((0, INACTIVE), (15, INACTIVE), (16, other), (18, INACTIVE), (37, INACTIVE), (39, INACTIVE))
    assert found == [False] * 5 + [True]


def test_the_same_answer_with_other_numbers_is_the_same() -> None:
    of = "insufficient quota for cpu in flavor pool, request ({}) > maximum capacity (64)"
    assert given_up((0, answer(of.format(130))), (21, answer(of.format(131)))) == [False, True]


@pytest.mark.parametrize("bad", [INACTIVE, NO_QUEUE, NO_WORKLOAD, NO_KUEUE])
@pytest.mark.parametrize("good", [WAITS, answer("Quota reserved in ClusterQueue hagane", "QuotaReserved", "True")])
def test_a_job_that_waits_its_turn_is_never_given_up_later(good: Queueing, bad: Queueing) -> None:
    assert given_up((0, good), (HOURS_S, bad), (2 * HOURS_S, bad)) == [False] * 3


@pytest.mark.parametrize("away", [NO_WORKLOAD, NO_KUEUE])
def test_of_a_job_that_had_a_workload_neither_it_nor_kueue_may_be_missed(away: Queueing) -> None:
    assert given_up((0, NO_QUEUE), (5, away), (HOURS_S, away)) == [False] * 3


@pytest.mark.parametrize("is_new", [True, False])
def test_a_kueue_that_was_not_asked_made_no_workload_missing(is_new: bool) -> None:
    assert given_up((0, NOT_ASKED), (HOURS_S, NOT_ASKED), is_new=is_new) == [False, False]


def test_a_job_that_kueue_has_not_looked_at_yet_is_still_new() -> None:
    unjudged = answer("Workload is pending evaluation in the scheduling queue", "PendingEvaluation")
    assert given_up((0, unjudged), (HOURS_S, NO_QUEUE), (HOURS_S + 21, NO_QUEUE)) == [False, False, True]


@pytest.mark.parametrize("bad", [INACTIVE, NO_WORKLOAD, NO_KUEUE])
def test_a_job_that_was_let_go_waits_when_it_is_suspended_again(bad: Queueing) -> None:
    watch = QueueWatch(PYTORCHJOB, is_new=True)
    assert watch.why_never("gpus", bad, now_s=0) is None
    watch.was_let_go()
    assert [watch.why_never("gpus", bad, now_s=at_s) for at_s in (HOURS_S, 2 * HOURS_S)] == [None, None]
