"""Ranks tell each other of failures, signs of life and farewells through a store."""

import pytest
import torch

from gan_lightning.resume.notice_board import LOST, Failure, NoticeBoard


@pytest.fixture
def server(monkeypatch):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    return store


def boards(count, run=1):
    return [NoticeBoard(rank, count, run) for rank in range(count)]


def test_all_ranks_hear_of_the_first_failure(server):
    first, second, third = boards(3)
    assert first.look(9) is None
    failure = Failure(2, 2, 1, "broken")
    assert third.tell(failure) == failure
    assert second.tell(Failure(1, 1, 2, "Connection closed by peer")) == failure
    assert [board.look(9) for board in (first, second)] == [failure] * 2


def test_runs_and_restarts_of_a_job_do_not_hear_of_each_other(server, monkeypatch):
    """The store of torchrun survives its processes, and in Python a process may go on after an error of all ranks."""
    boards(2)[0].tell(Failure(0, 0, 1, "broken"))
    assert boards(2, run=2)[1].look(9) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert boards(2)[1].look(9) is None


def test_a_rank_without_a_sign_of_life_has_failed_unless_it_has_left(server):
    first, second, third = boards(3)
    for _ in range(9):
        assert first.look(3) is None  # second is alive
        assert second.look(99) is None
    assert [first.look(3) for _ in range(3)] == [None] * 3
    missed = first.look(3)
    assert (missed.rank, missed.teller, missed.reason) == (1, 0, "rank 1 shows no sign of life")
    assert third.look(3) == missed
    first, second = boards(2, run=2)
    second.leave()
    assert [first.look(3) for _ in range(9)] == [None] * 9


def test_rank_0_knows_when_all_have_left_and_the_others_when_it_has(server):
    first, second, third = boards(3)
    second.leave()
    second.leave()
    assert not first.others_left()
    third.leave()
    assert first.others_left()
    assert not second.others_left()
    first.leave()
    assert [board.others_left() for board in (first, second, third)] == [True] * 3


def test_a_store_that_nobody_serves_any_more_means_that_rank_0_has_ended(monkeypatch):
    server = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    _, second = boards(2)
    assert second.look(9) is None
    del server
    assert second.look(9) == LOST
    assert second.tell(Failure(1, 1, 1, "Connection closed by peer")) == LOST
    assert second.others_left()
    second.leave()
