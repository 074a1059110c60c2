"""One etcd cluster: several endpoints, one of them in use, and how its errors are sorted.

``client`` and ``watch`` call through here. A try is short; reads and other harmless calls
go on at the next endpoint until the call's deadline. A transaction is tried again
only when it is certain that the first try changed nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloudless.aio.clock import Clock
from cloudless.store.errors import (
    AccessDenied,
    Compacted,
    InvalidRequest,
    LeaseExpired,
    NoSpace,
    StoreError,
    TooLarge,
    Unavailable,
)
from cloudless.store.etcd.stubs import (
    Connectivity,
    RpcError,
    StatusCode,
    UsageError,
    insecure_channel,
    rpc,
    secure_channel,
    ssl_channel_credentials,
)
from cloudless.store.limits import (
    ATTEMPT_TIMEOUT_S,
    CALL_TIMEOUT_S,
    MAX_MESSAGE_BYTES,
    RECONNECT_BASE_S,
)

#: Pings find a dead peer; etcd refuses clients that ping more often than every 5 s.
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
#: What etcd says when it did not even begin with a request.
_NOT_BEGUN: Final = ("no leader", "failed to connect", "too many requests")
_STALE_TOKEN: Final = ("invalid auth token", "revision of auth store is old", "user name is empty")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach and convince the servers; empty fields are not used."""

    ca_pem: bytes = b""
    cert_pem: bytes = b""
    key_pem: bytes = b""
    user: str = ""
    password: str = ""

    @property
    def tls(self) -> bool:
        """Whether channels are encrypted."""
        return bool(self.ca_pem or self.cert_pem)


class Endpoint:
    """One server: a channel and its stubs."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.address = address
        if credentials.tls:
            secret = ssl_channel_credentials(
                credentials.ca_pem or None, credentials.key_pem or None, credentials.cert_pem or None
            )
            self.channel = secure_channel(address, secret, options=_CHANNEL_OPTIONS)
        else:
            self.channel = insecure_channel(address, options=_CHANNEL_OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)
        self.maintenance = rpc.MaintenanceStub(self.channel)
        self.auth = rpc.AuthStub(self.channel)

    async def ready(self, timeout_s: float) -> bool:
        """Whether a connection stands, after waiting for one if needed."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    state = self.channel.get_state(try_to_connect=True)
                    if state is Connectivity.READY:
                        return True
                    if state in (Connectivity.TRANSIENT_FAILURE, Connectivity.SHUTDOWN):
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False


Attempt = Callable[[Endpoint, Sequence[tuple[str, str]], float], Any]


class Connection:
    """Endpoints of one cluster, tried in turn; sticks to the one that works."""

    def __init__(self, addresses: Sequence[str], credentials: Credentials, clock: Clock) -> None:
        self._endpoints = [Endpoint(address, credentials) for address in addresses]
        self._credentials = credentials
        self._clock = clock
        self._at = 0
        self._token = ""
        self._closed = False

    async def call(self, attempt: Attempt, *, repeatable: bool, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The answer of ``attempt(endpoint, metadata, timeout_s)``.

        ``repeatable`` calls may be sent twice. Raises a ``StoreError``; an ``Unavailable`` whose
        outcome is unknown only for calls that are not repeatable.
        """
        deadline_s = self._clock.monotonic() + timeout_s
        renewed = False
        while True:
            endpoint = await self.ready(deadline_s)
            remaining_s = deadline_s - self._clock.monotonic()
            try:
                metadata = await self.metadata(endpoint)
                return await attempt(endpoint, metadata, max(min(remaining_s, ATTEMPT_TIMEOUT_S), 0.001))
            except (RpcError, TimeoutError, UsageError) as error:
                if not renewed and self.log_in_forgotten(_details(error)):
                    renewed = True
                    continue
                sorted_error = sort_error(error)
            except Unavailable as error:  # the log-in failed: the call itself was not sent
                sorted_error = error
            if not isinstance(sorted_error, Unavailable):
                raise sorted_error
            self.rotate(endpoint)
            too_late = self._clock.monotonic() >= deadline_s
            if too_late or (sorted_error.outcome_unknown and not repeatable):
                unknown = sorted_error.outcome_unknown and not repeatable
                raise Unavailable(str(sorted_error), outcome_unknown=unknown)
            await self._clock.sleep(RECONNECT_BASE_S)

    async def ready(self, deadline_s: float) -> Endpoint:
        """An endpoint with a connection. Raises ``Unavailable`` at the deadline."""
        while True:
            if self._closed:
                raise Unavailable("the store is closed")
            endpoint = self._endpoints[self._at]
            remaining_s = deadline_s - self._clock.monotonic()
            if remaining_s > 0 and await endpoint.ready(min(remaining_s, ATTEMPT_TIMEOUT_S)):
                return endpoint
            self.rotate(endpoint)
            if remaining_s <= 0:
                raise Unavailable(f"cannot connect to etcd at {self.addresses}")
            await self._clock.sleep(RECONNECT_BASE_S)

    @property
    def addresses(self) -> str:
        """All endpoints, for messages."""
        return ", ".join(endpoint.address for endpoint in self._endpoints)

    def rotate(self, endpoint: Endpoint) -> None:
        """Turn to the next endpoint, unless somebody did already."""
        if self._endpoints[self._at] is endpoint:
            self._at = (self._at + 1) % len(self._endpoints)

    async def metadata(self, endpoint: Endpoint) -> list[tuple[str, str]]:
        """What every call carries: refuse a member without leader, and who we are.

        Raises ``AccessDenied``; ``Unavailable`` when the log-in got no answer.
        """
        metadata = [("hasleader", "true")]
        if self._credentials.user:
            if not self._token:
                self._token = await self._authenticate(endpoint)
            if self._token:
                metadata.append(("token", self._token))
        return metadata

    def forget_token(self) -> None:
        """Log in anew at the next call."""
        self._token = ""

    async def close(self) -> None:
        """Close every channel; calls still running end with an error."""
        self._closed = True
        for endpoint in self._endpoints:
            await endpoint.channel.close()

    async def _authenticate(self, endpoint: Endpoint) -> str:
        request = rpc.AuthenticateRequest(name=self._credentials.user, password=self._credentials.password)
        try:
            answer = await endpoint.auth.Authenticate(request, timeout=ATTEMPT_TIMEOUT_S)
        except RpcError as error:
            if "authentication is not enabled" in _details(error):
                return ""
            failure = sort_error(error)
            if isinstance(failure, Unavailable):
                failure = Unavailable(str(failure))
            raise failure from error
        return str(answer.token)

    def log_in_forgotten(self, text: str) -> bool:
        """Whether etcd says in ``text`` that it forgot our log-in; the next call logs in anew then."""
        stale = bool(self._credentials.user) and any(words in text for words in _STALE_TOKEN)
        if stale:
            self._token = ""
        return stale


def _details(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)


def sort_error(error: Exception) -> StoreError:
    """A gRPC failure as what the caller must do about it."""
    text = _details(error)
    code = getattr(error, "code", lambda: None)()
    if code is StatusCode.OUT_OF_RANGE and "compacted" in text:
        return Compacted(0)
    if code is StatusCode.NOT_FOUND and "lease" in text:
        return LeaseExpired(0)
    if code is StatusCode.RESOURCE_EXHAUSTED and "space exceeded" in text:
        return NoSpace(text)
    too_large = ("too large", "larger than max", "too many operations")
    if any(part in text for part in too_large):
        return TooLarge(text)
    if code in (StatusCode.OUT_OF_RANGE, StatusCode.INVALID_ARGUMENT):
        denied = "authentication failed" in text or any(part in text for part in _STALE_TOKEN)
        return AccessDenied(text) if denied else InvalidRequest(text)
    if code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
        return AccessDenied(text)
    return Unavailable(
        f"etcd does not answer: {text or code}",
        outcome_unknown=not any(part in text for part in _NOT_BEGUN),
    )
