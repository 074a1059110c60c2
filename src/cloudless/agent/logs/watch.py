"""Tells followers that something changed in a log directory.

One inotify instance serves all followers of an agent. A watch is armed only while a
follower waits and fires once: a log that is written fast, or read slowly, costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

from cloudless.agent.logs.limits import LOOK_AGAIN_S, LOOK_WITHOUT_NOTICE_S

log = logging.getLogger(__name__)

_CHANGES = Mask.MODIFY | Mask.CREATE | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONESHOT


class LogWatcher:
    """Belongs to one running loop; ``close`` it."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._waiting: dict[int, tuple[Watch, set[asyncio.Future[None]]]] = {}

    def arm(self, directory: Path) -> asyncio.Future[None]:
        """A future that is done soon after anything in ``directory`` changes; cancel it when not needed.

        Look at the directory again after arming: what changed before gives no notice. Without
        inotify (a limit of the host) the future is done after a short while instead.
        """
        loop = asyncio.get_running_loop()
        notice: asyncio.Future[None] = loop.create_future()
        try:
            watch = self._open(loop).add_watch(directory, _CHANGES)
        except OSError as error:
            log.debug("no notice of changes", extra={"directory": str(directory), "error": str(error)})
            loop.call_later(LOOK_WITHOUT_NOTICE_S, _done, notice)
            return notice
        timer = loop.call_later(LOOK_AGAIN_S, _done, notice)
        self._waiting.setdefault(watch.wd, (watch, set()))[1].add(notice)
        notice.add_done_callback(lambda done: self._finished(watch, timer, done))
        return notice

    def close(self) -> None:
        """Let go of the inotify instance; who still waits is told to look."""
        for _, notices in list(self._waiting.values()):
            for notice in list(notices):
                _done(notice)
        self._waiting.clear()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _open(self, loop: asyncio.AbstractEventLoop) -> Inotify:
        if self._inotify is None:
            self._inotify = Inotify(sync_timeout=0)
            loop.add_reader(self._inotify.fd, self._read)
        return self._inotify

    def _read(self) -> None:
        assert self._inotify is not None
        while (event := self._inotify.sync_get()) is not None:
            if Mask.Q_OVERFLOW in event.mask:
                fired = list(self._waiting)
            else:
                fired = [] if event.watch is None else [event.watch.wd]
            for wd in fired:
                for notice in self._waiting.pop(wd, (None, ()))[1]:
                    _done(notice)

    def _finished(self, watch: Watch, timer: asyncio.TimerHandle, notice: asyncio.Future[None]) -> None:
        timer.cancel()
        _, notices = self._waiting.get(watch.wd, (watch, set()))
        notices.discard(notice)
        if watch.wd in self._waiting and not notices and self._inotify is not None:
            del self._waiting[watch.wd]
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                log.debug("the watch was gone already", extra={"directory": str(watch.path)})


def _done(notice: asyncio.Future[None]) -> None:
    if not notice.done():
        notice.set_result(None)
