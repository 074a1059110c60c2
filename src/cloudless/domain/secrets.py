"""Passwords in specifications: they go in and never come out again.

Answers show that a password is there and not what it is. What is shown may be sent back:
it stands for the password that is stored, so that a workload can be read, changed and
written by somebody who does not know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import Field

from cloudless.domain.errors import Invalid
from cloudless.domain.model import Model
from cloudless.domain.names import Text

#: Shown in the place of a password; no password itself.
HIDDEN: Final = "(not shown)"


class PullSecret(Model):
    """Credentials for one registry."""

    server: Text = Field(min_length=1, max_length=256)
    username: Text = Field(default="", max_length=256)
    password: Text = Field(
        default="",
        max_length=4096,
        repr=False,
        description='Write-only: read as "(not shown)", which sent back means the stored one.',
    )


def hidden(secrets: Iterable[PullSecret]) -> tuple[PullSecret, ...]:
    """The same without their passwords.

    >>> hidden([PullSecret(server="r", password="x"), PullSecret(server="s")])[0].password
    '(not shown)'
    """
    return tuple(secret.replaced(password=HIDDEN) if secret.password else secret for secret in secrets)


def restored(secrets: Sequence[PullSecret], stored: Iterable[PullSecret]) -> tuple[PullSecret, ...]:
    """``secrets`` with each hidden password taken from the stored secret of its server and user.

    Raises ``Invalid`` where there is none to take.

    >>> restored(hidden([PullSecret(server="r", password="x")]), [PullSecret(server="r", password="x")])
    (PullSecret(server='r', username=''),)
    """
    known = {(secret.server, secret.username): secret.password for secret in stored}
    return tuple(_restored(secret, known, index) for index, secret in enumerate(secrets))


def _restored(secret: PullSecret, known: dict[tuple[str, str], str], index: int) -> PullSecret:
    if secret.password != HIDDEN:
        return secret
    password = known.get((secret.server, secret.username))
    if not password:
        raise Invalid.field(
            f"spec.pull_secrets[{index}].password",
            f"is {HIDDEN!r}, but no password is stored for this server and username",
            hint="give the password itself",
        )
    return secret.replaced(password=password)
