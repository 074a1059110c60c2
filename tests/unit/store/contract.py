"""What every store promises: one suite that memory, embedded and etcd pass alike.

A test module derives a class from this and has a fixture ``subject``. No test here knows
which store it runs on. Watches have ``watch_contract``.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.store.subject import Subject, delete, holds, keys, put, revision_of, short, take

from cloudless.store.errors import Compacted, InvalidRequest, LeaseExpired, TooLarge, Unavailable
from cloudless.store.limits import MAX_KEY_BYTES, MAX_TXN_OPS, MAX_VALUE_BYTES
from cloudless.store.port import (
    Compare,
    Delete,
    DeletePrefix,
    Get,
    KeyValue,
    Lease,
    Op,
    Page,
    Put,
    Range,
    Relation,
    Target,
)


class StoreContract:
    """Keys, revisions, transactions, history, leases."""

    async def test_an_empty_store_has_no_keys(self, subject: Subject) -> None:
        assert await subject.store.get("a") is None
        page = await subject.store.range("")
        assert page.items == ()
        assert not page.more
        assert page.revision >= 1

    async def test_each_write_makes_the_next_revision(self, subject: Subject) -> None:
        store = subject.store
        start = await revision_of(store)
        first = await put(store, "k", b"1")
        second = await put(store, "k", b"2")
        assert (first, second) == (start + 1, start + 2)
        assert await store.get("k") == KeyValue("k", b"2", first, second, 2)
        assert await store.get("k", revision=first) == KeyValue("k", b"1", first, first, 1)
        assert await store.get("k", revision=start) is None

    async def test_a_key_made_anew_starts_its_versions_again(self, subject: Subject) -> None:
        store = subject.store
        await put(store, "k", b"1")
        await delete(store, Delete("k"))
        assert await store.get("k") is None
        again = await put(store, "k", b"2")
        assert await store.get("k") == KeyValue("k", b"2", again, again, 1)

    async def test_what_changes_nothing_makes_no_revision(self, subject: Subject) -> None:
        store = subject.store
        before = await put(store, "k", b"1")
        result = await store.txn((), [Delete("other"), DeletePrefix("others/"), Get("k")])
        assert result.revision == before
        assert result.responses == (0, 0, KeyValue("k", b"1", before, before, 1))
        assert await revision_of(store) == before

    async def test_a_transaction_is_one_revision(self, subject: Subject) -> None:
        store = subject.store
        before = await put(store, "old", b"o")
        result = await store.txn((), [Put("b", b"1"), Delete("old"), Put("a", b"2")])
        assert result.revision == before + 1
        assert result.responses == (None, 1, None)
        page = await store.range("")
        assert [(kv.key, kv.mod_revision) for kv in page.items] == [
            ("a", before + 1),
            ("b", before + 1),
        ]

    async def test_reads_in_a_transaction_see_the_writes_before_them(self, subject: Subject) -> None:
        store = subject.store
        await put(store, "p/old", b"o")
        result = await store.txn(
            (),
            [Get("p/a"), Put("p/a", b"1"), Get("p/a"), DeletePrefix("p/o"), Range("p/"), Put("p/z", b"2")],
        )
        revision = result.revision
        kv = KeyValue("p/a", b"1", revision, revision, 1)
        assert result.responses == (None, None, kv, 1, Page(revision, (kv,)), None)

    async def test_the_other_branch_runs_when_a_compare_fails(self, subject: Subject) -> None:
        store = subject.store
        at = await put(store, "k", b"1")
        result = await store.txn(
            [Compare.absent("k"), Compare.absent("other")], [Put("k", b"no")], [Get("k"), Put("log", b"x")]
        )
        assert not result.succeeded
        assert result.responses == (KeyValue("k", b"1", at, at, 1), None)
        assert await store.get("log") is not None

    @pytest.mark.parametrize("target", [Target.MOD_REVISION, Target.CREATE_REVISION, Target.VERSION])
    async def test_compares_of_numbers(self, subject: Subject, target: Target) -> None:
        store = subject.store
        await put(store, "k", b"1")
        await put(store, "k", b"2")
        found = await store.get("k")
        assert found is not None
        actual = getattr(found, target.value)
        for operand in (actual - 1, actual, actual + 1):
            for relation, expected in (
                (Relation.EQUAL, actual == operand),
                (Relation.NOT_EQUAL, actual != operand),
                (Relation.LESS, actual < operand),
                (Relation.GREATER, actual > operand),
            ):
                assert await holds(store, Compare("k", target, relation, operand)) is expected
        assert await holds(store, Compare("none", target, Relation.EQUAL, 0))
        assert not await holds(store, Compare("none", target, Relation.NOT_EQUAL, 0))

    async def test_compares_of_values(self, subject: Subject) -> None:
        store = subject.store
        await put(store, "k", b"m")
        for operand in (b"", b"l", b"m", b"ma", b"n"):
            for relation, expected in (
                (Relation.EQUAL, operand == b"m"),
                (Relation.NOT_EQUAL, operand != b"m"),
                (Relation.LESS, operand > b"m"),
                (Relation.GREATER, operand < b"m"),
            ):
                assert await holds(store, Compare("k", Target.VALUE, relation, operand)) is expected
        for relation in Relation:
            assert not await holds(store, Compare("none", Target.VALUE, relation, b"m"))

    async def test_named_compares(self, subject: Subject) -> None:
        store = subject.store
        at = await put(store, "k")
        assert await holds(store, Compare.present("k"), Compare.absent("n"), Compare.unchanged("k", at))
        assert await holds(store, Compare.created_at("k", at), Compare.unchanged("n", 0))
        assert not await holds(store, Compare.absent("k"))
        assert not await holds(store, Compare.present("n"))
        await put(store, "k")
        assert await holds(store, Compare.created_at("k", at))
        assert not await holds(store, Compare.unchanged("k", at))

    async def test_only_one_of_many_creators_wins(self, subject: Subject) -> None:
        async def create(number: int) -> bool:
            made = Put("k", str(number).encode())
            return (await subject.store.txn([Compare.absent("k")], [made])).succeeded

        results = await asyncio.gather(*(create(number) for number in range(20)))
        found = await subject.store.get("k")
        assert found is not None
        assert [number for number, won in enumerate(results) if won] == [int(found.value)]

    async def test_writes_at_once_are_all_there(self, subject: Subject) -> None:
        store = subject.store
        revisions = await asyncio.gather(*(put(store, f"k/{n:03}", b"%d" % n) for n in range(100)))
        assert len(set(revisions)) == 100
        page = await store.range("k/")
        assert [(kv.key, kv.value, kv.mod_revision) for kv in page.items] == [
            (f"k/{n:03}", b"%d" % n, revisions[n]) for n in range(100)
        ]

    async def test_a_prefix_is_text_not_a_path(self, subject: Subject) -> None:
        store = subject.store
        names = ["a", "a/b", "a/b/c", "a0", "ab", "b", "aÿ", "a\U0010ffff", "a\U0010ffffz", "ÿ", "\0", "a\0"]
        for name in names:
            await put(store, name)
        assert await keys(store, "") == sorted(names)
        for prefix in ("a", "a/", "a/b", "ab", "aÿ", "a\U0010ffff", "ÿ", "\0", "none"):
            assert await keys(store, prefix) == sorted(n for n in names if n.startswith(prefix)), prefix
        await delete(store, DeletePrefix("a\U0010ffff"))
        assert await keys(store, "a") == ["a", "a\0", "a/b", "a/b/c", "a0", "ab", "aÿ"]
        await delete(store, DeletePrefix(""))
        assert await keys(store) == []

    async def test_pages_show_one_revision_while_writes_go_on(self, subject: Subject) -> None:
        store = subject.store
        for number in range(10):
            await put(store, f"p/{number}", b"old")
        await put(store, "q", b"other")
        page = await store.range("p/", limit=4)
        pinned, seen, pages = page.revision, list(page.items), 1
        while page.more:
            await put(store, f"p/{pages}", b"new")
            await put(store, f"p/{pages}x", b"new")
            await delete(store, Delete(f"p/{9 - pages}"))
            page = await store.range("p/", start_after=seen[-1].key, limit=4, revision=pinned)
            assert page.revision == pinned
            seen += page.items
            pages += 1
        assert pages == 3
        assert [(kv.key, kv.value) for kv in seen] == [(f"p/{n}", b"old") for n in range(10)]
        assert tuple(seen) == (await store.range("p/", revision=pinned)).items

    async def test_edges_of_paging(self, subject: Subject) -> None:
        store = subject.store
        for name in ("p/a", "p/b", "q"):
            await put(store, name)
        assert not (await store.range("p/", limit=2)).more
        assert (await store.range("p/", limit=1)).more
        assert (await store.range("p/", start_after="p/b")).items == ()
        assert (await store.range("p/", start_after="z")).items == ()
        assert [kv.key for kv in (await store.range("p/", start_after="a")).items] == ["p/a", "p/b"]
        assert [kv.key for kv in (await store.range("p/", start_after="p/a")).items] == ["p/b"]
        assert [kv.key for kv in (await store.range("", start_after="p/a")).items] == ["p/b", "q"]

    async def test_more_keys_than_one_message_holds(self, subject: Subject) -> None:
        store = subject.store
        for start in range(0, 2500, 125):
            await store.txn((), [Put(f"m/{n:05}", b"x" * 100) for n in range(start, start + 125)])
        page = await store.range("m/")
        assert [kv.key for kv in page.items] == [f"m/{n:05}" for n in range(2500)]
        page = await store.range("m/", limit=2100)
        assert len(page.items) == 2100
        assert page.more

    async def test_history_is_gone_after_compaction(self, subject: Subject) -> None:
        store = subject.store
        first = await put(store, "k", b"1")
        second = await put(store, "k", b"2")
        await put(store, "gone", b"")
        third = await delete(store, Delete("gone"))
        await store.compact(third)
        with pytest.raises(Compacted):
            await store.get("k", revision=first)
        with pytest.raises(Compacted):
            await store.range("", revision=second)
        assert (await store.range("", revision=third)).items == (KeyValue("k", b"2", first, second, 2),)
        await store.compact(second)  # done already
        with pytest.raises(InvalidRequest):
            await store.compact(third + 100)

    async def test_the_future_cannot_be_read(self, subject: Subject) -> None:
        now = await revision_of(subject.store)
        with pytest.raises(InvalidRequest):
            await subject.store.get("k", revision=now + 10)
        with pytest.raises(InvalidRequest):
            await subject.store.range("", revision=now + 10)

    async def test_limits(self, subject: Subject) -> None:
        store = subject.store
        largest = bytes(MAX_VALUE_BYTES)
        await put(store, "k" * MAX_KEY_BYTES, largest)
        found = await store.get("k" * MAX_KEY_BYTES)
        assert found is not None
        assert found.value == largest
        await store.txn(
            [Compare.absent(f"n{n}") for n in range(MAX_TXN_OPS)],
            [Put(f"n{n}", b"") for n in range(MAX_TXN_OPS)],
        )
        before = await revision_of(store)
        refused: list[list[Op]] = [
            [Put("k", largest + b"x")],
            [Put("k" * (MAX_KEY_BYTES + 1), b"")],
            [Put(f"k{n}", b"") for n in range(MAX_TXN_OPS + 1)],
            [Put("a", largest), Put("b", largest)],
        ]
        for ops in refused:
            with pytest.raises(TooLarge):
                await store.txn((), ops)
        with pytest.raises(TooLarge):
            await store.txn([Compare.absent(f"k{n}") for n in range(MAX_TXN_OPS + 1)], ())
        assert await revision_of(store) == before

    async def test_requests_without_sense(self, subject: Subject) -> None:
        store = subject.store
        before = await revision_of(store)
        senseless: list[list[Op]] = [
            [Put("", b"")],
            [Put("\ud800", b"")],
            [Delete("")],
            [Put("k", b"1"), Put("k", b"2")],
            [Put("k", b"1"), Delete("k")],
            [DeletePrefix("k"), Put("key", b"1")],
            [Range("k", limit=-1)],
        ]
        for ops in senseless:
            with pytest.raises(InvalidRequest):
                await store.txn((), ops)
            with pytest.raises(InvalidRequest):
                await store.txn((), (), ops)
        with pytest.raises(InvalidRequest):
            await store.get("")
        with pytest.raises(InvalidRequest):
            await store.get("k", revision=0)
        with pytest.raises(InvalidRequest):
            await store.range("k", limit=-1)
        with pytest.raises(InvalidRequest):
            await store.txn([Compare("k", Target.VALUE, Relation.EQUAL, 1)], ())
        with pytest.raises(InvalidRequest):
            await store.grant(0)
        assert await revision_of(store) == before

    async def test_a_lease_takes_its_keys_with_it(self, subject: Subject) -> None:
        store = subject.store
        lease = await store.grant(1.5)
        assert lease.ttl_s >= 2
        await put(store, "mine/a", b"1", lease.id)
        await put(store, "mine/b", b"1", lease.id)
        await put(store, "mine/c", b"1", lease.id)
        last = await put(store, "mine/c", b"2")  # detached
        found = await store.get("mine/a")
        assert found is not None
        assert found.lease == lease.id
        async with store.watch("mine/", start_revision=last + 1) as batches:
            await subject.pass_time(lease.ttl_s + 1)
            [batch] = await take(batches, 1)
        assert short(batch) == (last + 1, [("delete", "mine/a", b""), ("delete", "mine/b", b"")])
        assert await keys(store, "mine/") == ["mine/c"]
        with pytest.raises(LeaseExpired):
            await store.keep_alive(lease)
        with pytest.raises(LeaseExpired):
            await store.revoke(lease)

    async def test_a_lease_kept_alive_lives(self, subject: Subject) -> None:
        store = subject.store
        lease = await store.grant(4)
        await put(store, "k", b"", lease.id)
        for _ in range(3):
            await subject.pass_time(lease.ttl_s * 0.4)
            await store.keep_alive(lease)
        assert await store.get("k") is not None

    async def test_a_revoked_lease_deletes_its_keys_in_one_revision(self, subject: Subject) -> None:
        store = subject.store
        lease = await store.grant(60)
        await put(store, "a", b"", lease.id)
        before = await put(store, "b", b"", lease.id)
        async with store.watch("", start_revision=before + 1) as batches:
            await store.revoke(lease)
            [batch] = await take(batches, 1)
        assert [e.kv for e in batch.events] == [
            KeyValue("a", b"", 0, before + 1, 0),
            KeyValue("b", b"", 0, before + 1, 0),
        ]
        assert await revision_of(store) == before + 1
        with pytest.raises(LeaseExpired):
            await store.keep_alive(lease)

    async def test_a_lease_without_keys_is_no_revision(self, subject: Subject) -> None:
        before = await revision_of(subject.store)
        await subject.store.revoke(await subject.store.grant(60))
        assert await revision_of(subject.store) == before

    async def test_nothing_is_put_on_an_unknown_lease(self, subject: Subject) -> None:
        store = subject.store
        before = await revision_of(store)
        with pytest.raises(LeaseExpired):
            await store.txn((), [Put("a", b""), Put("k", b"", 4711)])
        with pytest.raises(LeaseExpired):
            await store.keep_alive(Lease(4711, 10))
        assert await revision_of(store) == before
        assert await keys(store) == []

    async def test_status_tells_the_revision(self, subject: Subject) -> None:
        at = await put(subject.store, "k", b"x" * 1000)
        status = await subject.store.status()
        assert status.ready
        assert status.revision == at
        assert status.size_bytes > 1000
        assert not status.alarm
        assert status.identity

    async def test_a_closed_store_is_unavailable(self, subject: Subject) -> None:
        store = subject.store
        await put(store, "k")
        async with store.watch("", start_revision=await revision_of(store) + 1) as batches:
            await store.close()
            with pytest.raises(Unavailable):
                await anext(batches)
        await store.close()
        with pytest.raises(Unavailable):
            await store.get("k")
        with pytest.raises(Unavailable):
            await put(store, "k")
        assert not (await store.status()).ready
