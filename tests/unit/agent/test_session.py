from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual, virtual_clock

from cloudless.agent import session as room
from cloudless.agent.limits import LINK_RETRY_CAP_S, LINK_STEADY_S
from cloudless.agent.session import Session
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import Unavailable


class Dialled:
    """A coordinator whose links hold for ``holds_s``; at 0 it cannot be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holds_s: float) -> None:
        self.holds_s = holds_s
        self.at_s: list[float] = []
        monkeypatch.setattr(room, "dial_link", self._dial)

    async def _dial(self, host: str, port: int, hello: dict[str, str], server: Any) -> Any:
        loop = asyncio.get_running_loop()
        if hello["kind"] == "control":
            self.at_s.append(loop.time())
        if not self.holds_s:
            raise Unavailable("connection refused")
        closed = asyncio.Event()
        loop.call_later(self.holds_s, closed.set)

        class Link:
            def __init__(self) -> None:
                self.closed = closed

            async def close(self) -> None:
                closed.set()

        return Link()

    @property
    def pauses_s(self) -> list[float]:
        """Seconds from the end of each link to the next dial."""
        return [
            later - earlier - self.holds_s for earlier, later in zip(self.at_s, self.at_s[1:], strict=False)
        ]


async def dial_for(seconds: float) -> None:
    session = Session(
        address="127.0.0.1:1",
        node_id="n",
        node_name="n",
        session="n.s",
        server=object(),  # type: ignore[arg-type]
        clock=virtual_clock(),
        chance=random.Random(1),
    )
    async with Supervisor("test") as supervisor:
        session.start(supervisor)
        await asyncio.sleep(seconds)
        supervisor.cancel_all()


@pytest.mark.parametrize("holds_s", [0.0, LINK_STEADY_S / 100])
def test_what_breaks_at_once_is_tried_ever_less_often(
    holds_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled = Dialled(monkeypatch, holds_s)
    virtual(dial_for)(600)
    assert len(dialled.at_s) < 600 / LINK_RETRY_CAP_S * 2 + 20
    assert min(dialled.pauses_s[10:]) > LINK_RETRY_CAP_S / 2 - 0.1


def test_a_link_that_held_is_dialled_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = Dialled(monkeypatch, LINK_STEADY_S * 2)
    virtual(dial_for)(60)
    assert len(dialled.at_s) > 20
    assert max(dialled.pauses_s) < 0.01
