"""A delivery counts once, a token works once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

from tests.contract.store_rows import START, ManualClock, WholeStore, a_delivery, a_fact
from webhook.group_commit import GroupCommit
from workers.domain.errors import Bug
from workers.domain.events import Delivery, JobAction
from workers.domain.names import HostId, JobId
from workers.store.repository import SqlStore

JOB = JobId(7)
PATIENCE_S = 30.0


def kept(store_url: str, table: str) -> list[tuple[object, ...]]:
    engine = create_engine(store_url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]  # noqa: S608 our own table
    engine.dispose()
    return found


class TestDeliveries:
    def test_facts_come_back_equal_and_in_the_order_in_which_they_came(self, store: WholeStore) -> None:
        bare = replace(
            a_fact("a", action=JobAction.COMPLETED), runner_id=None, runner_name=None, conclusion=None, labels=()
        )
        store.write_deliveries([a_delivery("z")])
        store.write_deliveries([replace(a_delivery("a"), fact=bare), a_delivery("other", job=8)])
        assert store.facts_of(JOB) == [a_fact("z"), bare]

    def test_a_batch_keeps_the_order_in_which_it_came(self, store: WholeStore) -> None:
        store.write_deliveries([a_delivery(guid) for guid in ("m", "z", "a", "m", "b")])
        assert [fact.delivery for fact in store.facts_of(JOB)] == ["m", "z", "a", "b"]

    def test_a_doubled_delivery_changes_nothing(self, sql_store: SqlStore, store_url: str) -> None:
        first = a_delivery("g")
        another = replace(first, body=b"another", fact=replace(a_fact("g"), conclusion="failure"))
        sql_store.write_deliveries([first, another])
        sql_store.write_deliveries([another, a_delivery("h"), another])
        assert sql_store.facts_of(JOB) == [a_fact("g"), a_fact("h")]
        assert sorted((row[0], row[4]) for row in kept(store_url, "deliveries")) == [
            ("g", first.body),
            ("h", first.body),
        ]

    def test_a_fact_that_was_seen_does_not_come_back_with_its_double(self, store: WholeStore) -> None:
        store.write_deliveries([a_delivery("g")])
        store.mark_seen(store.facts_of(JOB))
        store.write_deliveries([a_delivery("g")])
        assert store.jobs_with_unseen_facts() == []

    def test_a_delivery_that_says_nothing_of_a_job_is_kept(self, sql_store: SqlStore, store_url: str) -> None:
        ping = Delivery("p", "ping", None, START, b"\x00\xff")
        sql_store.write_deliveries([ping])
        sql_store.write_deliveries([])
        assert [row[:3] for row in kept(store_url, "deliveries")] == [("p", "ping", None)]
        assert sql_store.jobs_with_unseen_facts() == []

    def test_a_batch_is_written_all_or_none(self, sql_store: SqlStore, store_url: str) -> None:
        wrong = replace(a_fact("h"), seen_at=START.replace(tzinfo=None))
        with pytest.raises(Bug):
            sql_store.write_deliveries([a_delivery("g"), replace(a_delivery("h"), fact=wrong)])
        assert kept(store_url, "deliveries") == []
        assert sql_store.facts_of(JOB) == []

    def test_in_a_group_commit_a_double_counts_once_and_what_no_store_can_hold_keeps_nobody_from_being_written(
        self, sql_store: SqlStore
    ) -> None:
        gate = threading.Event()
        told: list[str] = []

        def write(rows: Sequence[Delivery]) -> None:
            assert gate.wait(PATIENCE_S)
            sql_store.write_deliveries(rows)

        commit = GroupCommit(write, lambda rows: told.extend(row.guid for row in rows), PATIENCE_S)
        too_large = replace(a_fact("c"), job_id=JobId(1 << 63))
        sent = [a_delivery("first"), a_delivery("a"), a_delivery("b"), a_delivery("a")]
        sent += [replace(a_delivery("c"), fact=too_large), a_delivery("d")]
        with ThreadPoolExecutor(len(sent)) as pool:
            answers = [pool.submit(commit.put, row) for row in sent]
            gate.set()
        assert [answer.exception() is None for answer in answers] == [True, True, True, True, False, True]
        assert sorted(fact.delivery for fact in sql_store.facts_of(JOB)) == ["a", "b", "d", "first"]
        assert sorted(set(told)) == ["a", "b", "d", "first"]

    def test_jobs_wait_until_each_of_their_facts_was_seen_the_longest_waiting_first(self, store: WholeStore) -> None:
        store.write_deliveries([a_delivery("1", job=9)])
        store.write_deliveries([a_delivery("2", job=7), a_delivery("3", job=9)])
        assert store.jobs_with_unseen_facts() == [9, 7]
        store.mark_seen([a_fact("1", job=9)])
        assert store.jobs_with_unseen_facts() == [7, 9]
        store.mark_seen(store.facts_of(JobId(9)))
        assert store.jobs_with_unseen_facts() == [7]
        store.mark_seen([])
        assert store.jobs_with_unseen_facts() == [7]
        assert [store.has_unseen_facts(JobId(number)) for number in (7, 9, 8)] == [True, False, False]


class TestTokens:
    def test_a_token_names_its_host_once(self, store: WholeStore) -> None:
        tokens = {store.issue_token(HostId(name), START + timedelta(minutes=5)): name for name in ("a", "b", "c")}
        for token, name in tokens.items():
            assert store.burn_token(token, "10.90.0.16") == name
            assert store.burn_token(token, "10.90.0.16") is None

    def test_an_unknown_token_names_nobody(self, store: WholeStore) -> None:
        token = store.issue_token(HostId("a"), START + timedelta(minutes=5))
        assert store.burn_token(token.swapcase(), "10.90.0.16") is None
        assert store.burn_token("", "10.90.0.16") is None
        assert store.burn_token(token, "10.90.0.16") == "a"

    def test_a_token_that_is_too_old_names_nobody(self, store: WholeStore, clock: ManualClock) -> None:
        token = store.issue_token(HostId("a"), START + timedelta(minutes=5))
        clock.move(timedelta(minutes=5))
        assert store.burn_token(token, "10.90.0.16") is None

    def test_only_its_hash_is_kept(self, sql_store: SqlStore, store_url: str) -> None:
        token = sql_store.issue_token(HostId("a"), START + timedelta(minutes=5))
        sql_store.burn_token(token, "10.90.0.16")
        (row,) = kept(store_url, "tokens")
        assert token not in str(row)
        assert "10.90.0.16" in row
