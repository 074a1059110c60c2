"""Image references as people write them, and their full form (pure).

``nginx`` means ``docker.io/library/nginx:latest``: containerd itself knows only the
full form. The grammar is that of the distribution project (github.com/distribution,
package reference), which docker and containerd share.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloudless.containerd.errors import InvalidRequest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_FOLDER = "library"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255
#: Name, tag and the longest digest with their separators: nothing longer is looked at.
MAX_REFERENCE_LENGTH = MAX_NAME_LENGTH + 1 + 128 + 1 + 7 + 128

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """A full reference: at least one of ``tag`` and ``digest`` is not empty."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        """The image record's name in containerd; a digest outranks the tag."""
        if self.digest:
            return f"{self.registry}/{self.repository}@{self.digest}"
        return f"{self.registry}/{self.repository}:{self.tag}"

    @property
    def home(self) -> str:
        """Registry and repository: what the names of one image's versions have in common."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return self.name


def parse(text: str) -> Reference:
    """Complete what a person wrote. Raises ``InvalidRequest`` that says what is wrong.

    >>> parse("nginx").name
    'docker.io/library/nginx:latest'
    >>> parse("localhost:5000/team/app:v1").name
    'localhost:5000/team/app:v1'
    """
    if len(text) > MAX_REFERENCE_LENGTH:
        raise _invalid(text, f"it is longer than {MAX_REFERENCE_LENGTH} characters")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "the digest must be sha256: and 64 hex digits")
    if _HEX_ID.fullmatch(rest):
        raise _invalid(text, "64 hex digits are an id, not a name")
    # A colon before the last slash belongs to the registry's port.
    colon = rest.rfind(":")
    tag = ""
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise _invalid(text, "the tag must be 1 to 128 of A-Z a-z 0-9 _ . -, not beginning with . or -")
    registry, repository = _split_registry(rest)
    if not _HOST.fullmatch(registry):
        raise _invalid(text, f"{registry!r} is not a registry's host")
    for component in repository.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise _invalid(text, _why_component(component))
    if len(registry) + 1 + len(repository) > MAX_NAME_LENGTH:
        raise _invalid(text, f"the name is longer than {MAX_NAME_LENGTH} characters")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(registry, repository, tag, digest)


def pinned(reference: str, digest: str) -> str:
    """The full name of exactly this image, whatever its tag means. Raises ``InvalidRequest``.

    >>> pinned("nginx:alpine", "sha256:" + "0" * 64)[:40]
    'docker.io/library/nginx@sha256:000000000'
    """
    parsed = parse(reference)
    return f"{parsed.home}@{digest}"


def familiar(name: str) -> str:
    """The short form of a full name, for people.

    >>> familiar("docker.io/library/nginx:alpine")
    'nginx:alpine'
    """
    return name.removeprefix(f"{DEFAULT_REGISTRY}/").removeprefix(f"{DEFAULT_FOLDER}/")


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    registry, repository = (first, rest) if is_host else (DEFAULT_REGISTRY, name)
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"{DEFAULT_FOLDER}/{repository}"
    return registry, repository


def _why_component(component: str) -> str:
    if not component:
        return "a part of the name is empty"
    if component.lower() != component:
        return f"{component!r} must be in lower case"
    return f"{component!r} may hold a-z, 0-9 and single . _ - between them"


def _invalid(text: str, why: str) -> InvalidRequest:
    shown = text if len(text) <= MAX_NAME_LENGTH else text[:MAX_NAME_LENGTH] + "..."
    return InvalidRequest(f"image reference {shown!r}: {why}")
