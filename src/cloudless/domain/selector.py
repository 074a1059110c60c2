"""Label selectors: ``a=b, a!=b, a in (x,y), a notin (x,y), a, !a``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from cloudless.domain.errors import Invalid
from cloudless.domain.names import check_label_key, check_label_value

#: A selector longer than this is refused before it is parsed.
MAX_SELECTOR_LENGTH = 4096
_SET = re.compile(r"(?P<key>\S+)\s+(?P<not>not)?in\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>\S*)")
#: A term up to its comma; those in brackets belong to it. Linear, whatever is written.
_TERM = re.compile(r"(?:[^,(]|\([^()]*+\)|\()*+")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term: the label must (or must not) have one of ``values``; no values: must (not) exist."""

    key: str
    values: frozenset[str] | None
    negated: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` satisfy this term; a missing label satisfies ``!=`` and ``notin``."""
        if self.values is None:
            return (self.key in labels) is not self.negated
        return (labels.get(self.key) in self.values) is not self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All terms must match; no terms match everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether ``labels`` satisfy every term.

        >>> parse_selector("app=web,tier!=cache").matches({"app": "web"})
        True
        """
        return all(term.matches(labels) for term in self.requirements)


def parse_selector(text: str) -> Selector:
    """Read a selector; raises ``ValueError`` with what is wrong."""
    if len(text) > MAX_SELECTOR_LENGTH:
        raise ValueError(f"must be at most {MAX_SELECTOR_LENGTH} characters long")
    if not text.strip():
        return Selector()
    return Selector(tuple(_requirement(term.strip()) for term in _terms(text)))


def selector_of(text: str, path: str = "label_selector") -> Selector:
    """Like ``parse_selector``, but raises ``Invalid`` that names the request's field."""
    try:
        return parse_selector(text)
    except ValueError as error:
        raise Invalid.field(path, str(error)) from None


def _terms(text: str) -> Iterator[str]:
    """The terms between the commas.

    >>> list(_terms("a in (x,y), b,,c("))
    ['a in (x,y)', ' b', '', 'c(']
    """
    at = 0
    while at <= len(text):
        found = _TERM.match(text, at)
        assert found is not None
        yield found[0]
        at = found.end() + 1


def _requirement(term: str) -> Requirement:
    if found := _SET.fullmatch(term):
        values = frozenset(check_label_value(value.strip()) for value in found["values"].split(","))
        return Requirement(check_label_key(found["key"]), values, bool(found["not"]))
    if found := _EQUAL.fullmatch(term):
        value = frozenset({check_label_value(found["value"])})
        return Requirement(check_label_key(found["key"]), value, found["operator"] == "!=")
    negated = term.startswith("!")
    try:
        return Requirement(check_label_key(term.removeprefix("!").strip()), None, negated)
    except ValueError:
        raise ValueError(f"{term[:60]!r} is not a term; write a=b, a!=b, a in (x,y), a or !a") from None


SelectorText = Annotated[str, AfterValidator(lambda text: (parse_selector(text), text)[1])]
