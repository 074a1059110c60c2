"""``--since`` and ``--until``: how long ago, or when."""

from __future__ import annotations

import datetime

from cloudless.cli.parsing import UsageError
from cloudless.domain.quantity import parse_duration


def moment(text: str, option: str, now: datetime.datetime) -> datetime.datetime:
    """ "5m" (before ``now``), "2026-01-02T03:04:05Z", "2026-01-02 03:04" or "03:04", local without a zone.

    Raises ``UsageError``.

    >>> now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    >>> moment("1m30s", "--since", now).isoformat(), moment("2026-01-01T10:00Z", "--since", now).isoformat()
    ('2026-01-02T03:02:35+00:00', '2026-01-01T10:00:00+00:00')
    """
    try:
        is_number = text.isascii() and text.isdigit() and len(text) < 8  # of seconds, as in other options
        return now - parse_duration(f"{text}s" if is_number else text)
    except ValueError:
        pass
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except ValueError:
        pass
    try:
        today = now.astimezone().date()
        at = datetime.datetime.combine(today, datetime.time.fromisoformat(text))
        return at.astimezone(datetime.UTC)
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is neither a duration nor a time",
            hint=f"{option} 5m, {option} 14:30 or {option} 2026-01-02T03:04:05Z",
        ) from None
