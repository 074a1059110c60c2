"""Which names are allowed, for objects, labels, environment and paths.

Pure text rules; every name that reaches a store key, a path or a host name has
passed one of these.
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

#: Longest name of a workload, namespace, port or volume (a DNS label).
MAX_NAME_LENGTH = 63
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
#: A number of at most so many digits is a replica's ordinal; an id that begins so is written further.
MAX_ORDINAL_DIGITS = 5
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def check_name(value: str) -> str:
    """A DNS label: 1 to 63 of a-z, 0-9 and '-', no '-' at the ends; raises ``ValueError``.

    >>> check_name("web-1")
    'web-1'
    """
    if len(value) > MAX_NAME_LENGTH:
        raise ValueError(f"is {len(value)} characters long; at most {MAX_NAME_LENGTH} are allowed")
    if _LABEL.fullmatch(value) is None:
        raise ValueError(
            "must be lower-case letters, digits and '-', beginning and ending with a letter or digit"
        )
    return value


def ordinal_of(text: str) -> int | None:
    """The ordinal that ``text`` means; None when it can only be the beginning of a replica's id.

    Ids may begin with digits. Whoever types 7 means the seventh replica, and would not want
    another one that happens to be called so.

    >>> ordinal_of("7"), ordinal_of("767zf"), ordinal_of("767222"), ordinal_of("")
    (7, None, None, None)
    """
    number = text.isascii() and text.isdigit() and len(text) <= MAX_ORDINAL_DIGITS
    return int(text) if number else None


def means_replica(text: str, ordinal: int, replica_id: str) -> bool:
    """Whether ``text``, an ordinal or the beginning of an id, means this replica.

    >>> means_replica("7", 7, "abc"), means_replica("7", 0, "7abc"), means_replica("7a", 0, "7abc")
    (True, False, True)
    """
    number = ordinal_of(text)
    return replica_id.startswith(text) if number is None else ordinal == number


def check_label_key(value: str) -> str:
    """A label key, with an optional DNS prefix: "app", "example.com/tier"; raises ``ValueError``."""
    prefix, slash, name = value.rpartition("/")
    if (slash and _LABEL_PREFIX.fullmatch(prefix) is None) or _LABEL_KEY_NAME.fullmatch(name) is None:
        raise ValueError(
            "must be a label key such as app or example.com/tier (at most 63 characters after the '/')"
        )
    return value


def check_label_value(value: str) -> str:
    """A label value: empty, or at most 63 of letters, digits, '-', '_', '.'; raises ``ValueError``."""
    if value and _LABEL_KEY_NAME.fullmatch(value) is None:
        raise ValueError(
            "must be at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"
        )
    return value


def check_env_name(value: str) -> str:
    """A name of an environment variable; raises ``ValueError``."""
    if len(value) > 256 or _ENV.fullmatch(value) is None:
        raise ValueError("must be letters, digits, '_', '.' or '-', not beginning with a digit")
    return value


def check_text(value: str) -> str:
    """Text without NUL; raises ``ValueError``."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def check_absolute_path(value: str) -> str:
    """A normalised absolute path without '..'; raises ``ValueError``.

    >>> check_absolute_path("/var/lib//app/")
    '/var/lib/app'
    """
    check_text(value)
    if not value.startswith("/"):
        raise ValueError("must be an absolute path, beginning with '/'")
    if ".." in value.split("/"):
        raise ValueError("must not contain '..'")
    if len(value) > 4096:
        raise ValueError("must be at most 4096 characters long")
    return posixpath.normpath("/" + value.lstrip("/"))  # two slashes in front would stay


#: Ids that this system makes; they become parts of paths, keys and names in the kernel.
ObjectId = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Name = Annotated[str, AfterValidator(check_name), StringConstraints(strict=True)]
LabelKey = Annotated[str, AfterValidator(check_label_key), StringConstraints(strict=True)]
LabelValue = Annotated[str, AfterValidator(check_label_value), StringConstraints(strict=True)]
EnvName = Annotated[str, AfterValidator(check_env_name), StringConstraints(strict=True)]
Text = Annotated[str, AfterValidator(check_text), StringConstraints(strict=True)]
AbsolutePath = Annotated[str, AfterValidator(check_absolute_path), StringConstraints(strict=True)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
PortNumber = Annotated[int, Field(strict=True, ge=1, le=65535)]
