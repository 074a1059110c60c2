"""``did you mean``: the known word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

#: Longer words are not compared: nobody mistypes that.
MAX_LENGTH = 100


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing.

    >>> closest("replcias", ["replicas", "resources"])
    'replicas'
    """
    names = sorted(set(known))
    if not word or len(word) > MAX_LENGTH:
        return ""
    import difflib  # only a mistake pays for it

    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if found:
        return found[0]
    lower = {name.lower().replace("_", ""): name for name in names}
    same = lower.get(word.lower().replace("_", "").replace("-", ""))
    starts = [name for name in names if name.startswith(word)]
    return same or (starts[0] if len(starts) == 1 else "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` or nothing."""
    found = closest(word, known)
    return f" (did you mean {found!r}?)" if found else ""
