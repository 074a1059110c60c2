"""JSON that strangers wrote: manifests, indexes and configs of images (pure).

Whatever is wrong with it is the image's fault and raised as ``InvalidImage``, also what
Python's reader itself would fail on.
"""

from __future__ import annotations

import json
from typing import Any

from cloudless.containerd.errors import InvalidImage


def read_json(data: bytes, what: str) -> Any:
    """The value in ``data``; ``what`` names it in the error. Raises ``InvalidImage``.

    >>> read_json(b'{"a": 1}', "manifest.json")
    {'a': 1}
    """
    try:
        return json.loads(data)
    except ValueError as error:
        raise InvalidImage(f"{what} is not JSON: {error}") from error
    except RecursionError:
        raise InvalidImage(f"{what} is nested too deeply") from None


def is_text(value: object) -> bool:
    """Whether it is a text that can be passed on: no NUL, no half of a surrogate pair.

    >>> is_text("é"), is_text("a\\0b"), is_text("\\ud800"), is_text(5)
    (True, False, False, False)
    """
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
