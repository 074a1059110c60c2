"""The codec against protobuf itself: same bytes read and written, bad input refused."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from cloudless.transport.codec import (
    CompiledCodec,
    DecodeError,
    Encoded,
    EncodeError,
    concat_repeated,
    decode,
    encode,
)
from cloudless.transport.decode import MAX_DEPTH
from cloudless.transport.encode import varint

Reference = Callable[[str], Any]


@pytest.mark.parametrize("seed", range(300))
def test_random_messages_are_what_protobuf_reads_and_writes(
    seed: int, demo: ModuleType, reference: Reference, random_message: Callable[..., Any]
) -> None:
    message = random_message(demo.Everything, random.Random(seed))
    data = encode(message)
    known = reference("Everything").FromString(data)
    ours = decode(known.SerializeToString(), demo.Everything)
    assert ours == message
    assert reference("Everything").FromString(encode(ours)) == known
    # Maps have no order; without them the bytes are the same.
    for name in list(known.DESCRIPTOR.fields_by_name):
        if "_by_" in name:
            known.ClearField(name)
            setattr(message, name, {})
    if message.child is None:
        assert encode(message) == known.SerializeToString()


@pytest.mark.parametrize("seed", range(400))
def test_what_we_accept_of_broken_bytes_is_what_protobuf_reads(
    seed: int, demo: ModuleType, reference: Reference, random_message: Callable[..., Any]
) -> None:
    chance = random.Random(seed)
    data = bytearray(encode(random_message(demo.Everything, chance)))
    for _ in range(chance.randrange(1, 4)):
        if not data:
            break
        place = chance.randrange(len(data))
        if chance.random() < 0.4:
            data[place] = chance.randrange(256)
        elif chance.random() < 0.5:
            del data[place : place + chance.randrange(1, 5)]
        else:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 4)))
    try:
        ours = decode(bytes(data), demo.Everything)
    except DecodeError:
        return
    theirs = reference("Everything").FromString(bytes(data))
    again = reference("Everything").FromString(encode(ours))
    _forget_what_python_cannot_hold(theirs)
    _forget_what_python_cannot_hold(again)
    assert str(again) == str(theirs)


def _forget_what_python_cannot_hold(message: Any) -> None:
    """Cut nanoseconds to microseconds everywhere below ``message``."""
    if message.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        message.nanos = int(message.nanos / 1000) * 1000
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = (
                [value[key] for key in value]
                if field.message_type.fields_by_name["value"].message_type
                else []
            )
        else:
            inner = value if field.is_repeated else [value]
        for part in inner:
            _forget_what_python_cannot_hold(part)


def key(number: int, wire: int) -> str:
    return varint(number << 3 | wire).hex()


def block(number: int, content: str) -> str:
    return key(number, 2) + varint(len(content) // 2).hex() + content


@pytest.mark.parametrize(
    ("data", "path", "problem"),
    [
        (key(1, 2) + "00", "int32_value", "wire type 2, not 0"),
        (key(14, 0) + "08", "text", "wire type 0, not 2"),
        (key(30, 5) + "00000000", "int32_list", "wire type 5"),
        (key(14, 2) + "7f616263", "text", "truncated"),
        (key(14, 2), "text", "truncated"),
        (key(1, 0) + "ff", "int32_value", "truncated"),
        (key(1, 0) + "08" + "80", "", "truncated"),
        (key(99, 2) + "05", "", "truncated"),
        (key(99, 1) + "0000", "", "truncated"),
        (key(7, 5) + "0102", "fixed32_value", "truncated"),
        (block(32, "010203"), "fixed32_list", "truncated"),
        (block(30, "80"), "int32_list", "truncated"),
        (block(17, key(14, 2) + "05"), "child.text", "truncated"),
        (block(17, block(17, key(14, 0) + "00")), "child.child.text", "wire type"),
        (block(38, key(2, 5) + "00000000"), "leaf_list.weight", "wire type"),
        ("0001", "", "field number 0"),
        (key(1, 3) + key(1, 4), "int32_value", "wire type 3"),
        (key(99, 3) + key(99, 4), "", "group"),
        (key(99, 6), "", "wire type 6"),
        (key(1, 0) + "80" * 10 + "01", "int32_value", "more than 10 bytes"),
        (key(2, 0) + "ff" * 9 + "7f", "int64_value", "more than 64 bits"),
        ("ffffffff7f00", "", "29 bits"),
        (key(1, 0) + "8080808010", "int32_value", "32 bits"),
        (key(3, 0) + "8080808010", "uint32_value", "32 bits"),
        (key(16, 0) + "8080808010", "color", "32 bits"),
        (block(14, "c328"), "text", "UTF-8"),
        (block(36, "c328"), "text_list", "UTF-8"),
        (block(50, block(1, "c328")), "text_by_text", "UTF-8"),
        (block(50, block(3, "")), "text_by_text", "map entry"),
        (block(52, block(2, key(2, 2) + "00")), "leaf_by_bool.weight", "wire type"),
        (block(70, key(1, 0) + "8080808080808001"), "time", "out of range"),
        (block(70, key(2, 0) + "8094ebdc03"), "time", "out of range"),
        (block(71, key(1, 0) + "01" + key(2, 0) + "ff" * 9 + "01"), "span", "out of range"),
        (block(71, block(3, "")), "span", "does not belong"),
        (block(64, "08"), "choice_time", "truncated"),
    ],
)
def test_bad_bytes_name_the_field(data: str, path: str, problem: str, demo: ModuleType) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(bytes.fromhex(data), demo.Everything)
    assert caught.value.path == path
    assert problem in caught.value.problem


def test_every_truncation_is_refused_or_ends_between_fields(
    demo: ModuleType, reference: Reference, random_message: Callable[..., Any]
) -> None:
    data = encode(random_message(demo.Everything, random.Random(5)))[:3000]
    refused = 0
    for size in range(len(data)):
        try:
            ours = decode(data[:size], demo.Everything)
        except DecodeError:
            refused += 1
            continue
        assert ours is not None
        reference("Everything").FromString(data[:size])
    assert refused > len(data) // 2


def test_nesting_is_bounded(demo: ModuleType) -> None:
    def nested(levels: int) -> bytes:
        data = b""
        for _ in range(levels):
            data = bytes.fromhex(key(17, 2)) + varint(len(data)) + data
        return data

    assert decode(nested(MAX_DEPTH - 1), demo.Everything).child is not None
    with pytest.raises(DecodeError, match="nested deeper"):
        decode(nested(MAX_DEPTH), demo.Everything)
    with pytest.raises(DecodeError, match="nested deeper"):
        decode(nested(50_000), demo.Everything)


@pytest.mark.parametrize(
    "piece",
    [
        key(1, 0) + "01",
        key(99, 0) + "01",
        block(17, ""),
        block(38, ""),
        block(50, ""),
        block(52, ""),
        block(43, ""),
        block(36, ""),
        block(62, ""),
    ],
)
def test_a_message_of_nothing_but_small_fields_is_cut_off(piece: str, demo: ModuleType) -> None:
    many = bytes.fromhex(piece) * (256 * 1024 * 2 // len(piece))
    with pytest.raises(DecodeError, match="too many fields"):
        decode(many, demo.Everything)
    assert decode(bytes.fromhex(piece) * 500, demo.Everything) is not None


def test_a_quarter_mebibyte_of_packed_numbers_is_read(demo: ModuleType) -> None:
    numbers = [1, 300] * 60_000
    assert decode(encode(demo.Everything(uint64_list=numbers)), demo.Everything).uint64_list == numbers


def test_last_member_of_a_oneof_wins_and_clears_the_others(demo: ModuleType) -> None:
    first = encode(demo.Everything(choice_int32=0))
    second = encode(demo.Everything(choice_leaf=demo.Leaf(name="x")))
    message = decode(first + second, demo.Everything)
    assert message.choice_int32 is None
    assert message.choice_leaf.name == "x"
    message = decode(second + first, demo.Everything)
    assert message.choice_leaf is None
    assert message.choice_int32 == 0


def test_occurrences_of_a_message_are_merged(demo: ModuleType) -> None:
    parts = [
        demo.Everything(leaf=demo.Leaf(name="x"), choice_leaf=demo.Leaf(name="y")),
        demo.Everything(leaf=demo.Leaf(weight=3), choice_leaf=demo.Leaf(weight=4)),
    ]
    message = decode(b"".join(map(encode, parts)), demo.Everything)
    assert message.leaf == demo.Leaf(name="x", weight=3)
    assert message.choice_leaf == demo.Leaf(name="y", weight=4)


def test_packed_and_single_numbers_are_both_read(demo: ModuleType) -> None:
    data = bytes.fromhex(key(30, 0) + "05" + block(30, "0607") + key(35, 0) + "01" + block(35, "0263"))
    message = decode(data, demo.Everything)
    assert message.int32_list == [5, 6, 7]
    assert [int(color) for color in message.color_list] == [1, 2, 0x63]


def test_unknown_fields_and_enum_numbers_are_kept(
    demo: ModuleType, reference: Reference, random_message: Callable[..., Any]
) -> None:
    full = encode(random_message(demo.Everything, random.Random(11)))
    sparse = decode(full, demo.Sparse)
    known = reference("Everything")
    assert known.FromString(encode(sparse)) == known.FromString(full)
    strange = decode(bytes.fromhex(key(16, 0) + "63"), demo.Everything)
    assert int(strange.color) == 0x63
    assert encode(strange) == bytes.fromhex(key(16, 0) + "63")


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"int32_value": 2**31}, "int32_value"),
        ({"int32_value": "5"}, "int32_value"),
        ({"int32_value": 1.5}, "int32_value"),
        ({"uint32_value": -1}, "uint32_value"),
        ({"sint64_value": 2**63}, "sint64_value"),
        ({"fixed32_value": -1}, "fixed32_value"),
        ({"float_value": "x"}, "float_value"),
        ({"float_value": 1e300}, "float_value"),
        ({"bool_value": 1}, "bool_value"),
        ({"text": b"bytes"}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"raw": "text"}, "raw"),
        ({"color": "RED"}, "color"),
        ({"text_list": "abc"}, "text_list"),
        ({"text_list": ["a", None]}, "text_list"),
        ({"int32_list": [1, 2**40]}, "int32_list"),
        ({"text_by_text": {"a": 1}}, "text_by_text"),
        ({"text_by_text": [("a", "b")]}, "text_by_text"),
        ({"time": datetime.datetime(2026, 1, 1)}, "time"),  # noqa: DTZ001 - naive on purpose
        ({"time": 5}, "time"),
        ({"span": datetime.timedelta(days=4_000_000)}, "span"),
        ({"choice_int32": 1, "choice_text": "x"}, "choice_text"),
        ({"leaf": "leaf"}, "leaf"),
    ],
)
def test_values_that_do_not_fit_name_the_field(values: dict[str, Any], path: str, demo: ModuleType) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(demo.Everything(child=demo.Everything(**values)))
    assert caught.value.path == f"child.{path}"


def test_encoded_messages_are_sent_as_they_are(demo: ModuleType) -> None:
    codec = CompiledCodec()
    leaf = Encoded(encode(demo.Leaf(name="kept")), demo.Leaf)
    assert codec.encode(leaf, demo.Leaf) == leaf.data
    assert decode(encode(demo.Everything(leaf=leaf)), demo.Everything).leaf.name == "kept"
    with pytest.raises(EncodeError):
        codec.encode(leaf, demo.Empty)
    with pytest.raises(EncodeError):
        codec.encode(demo.Leaf(), demo.Empty)


def test_a_list_is_built_from_encoded_items(demo: ModuleType) -> None:
    items = [demo.Leaf(name=str(number)) for number in range(200)]
    rest = encode(demo.Everything(text="next"))
    whole = concat_repeated(38, map(encode, items), demo.Everything, tail=rest)
    message = decode(whole.data, demo.Everything)
    assert message.leaf_list == items
    assert message.text == "next"


def test_messages_of_protobuf_go_through_protobuf(reference: Reference) -> None:
    codec = CompiledCodec()
    kind = reference("Leaf")
    data = codec.encode(kind(name="x"), kind)
    assert codec.decode(data, kind).name == "x"
    with pytest.raises(DecodeError):
        codec.decode(b"\x0a\xff", kind)
