"""Images are written by strangers: what is wrong with their JSON is an error of the image."""

from __future__ import annotations

import json

import pytest

from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.imageconfig import parse_config
from cloudless.containerd.untrusted import read_json

#: Deeper than this reader goes, and flat enough for containerd's own.
DEEP = b"[" * 5_000 + b"]" * 5_000


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"9" * 5_000, DEEP, b"[" * 100_000])
def test_what_cannot_be_read_is_the_images_fault(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="index"):
        read_json(data, "index")


@pytest.mark.parametrize("deep", [DEEP, b'{"config": {"Labels": %s}}' % DEEP])
def test_a_deep_config(deep: bytes) -> None:
    with pytest.raises(InvalidImage, match="nested too deeply"):
        parse_config(deep)


@pytest.mark.parametrize("key", ["User", "WorkingDir", "StopSignal", "Env", "Entrypoint", "Cmd"])
@pytest.mark.parametrize("text", ["\0", "\ud800", 5, {}, [5], ["a", None], ["\udfff"]])
def test_texts_that_are_none(key: str, text: object) -> None:
    with pytest.raises(InvalidImage, match=key):
        parse_config(json.dumps({"config": {key: text}}).encode())
