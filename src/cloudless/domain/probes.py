"""How a replica's health is asked for."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from cloudless.domain.model import Model
from cloudless.domain.names import PortNumber, Text
from cloudless.domain.quantity import Duration

#: Shortest probe period; less would be a load of its own.
MIN_PERIOD = datetime.timedelta(milliseconds=100)
HeaderName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9-]{1,128}$")]
HeaderValue = Annotated[str, StringConstraints(strict=True, max_length=4096, pattern=r"^[\x20-\x7e]*$")]
UrlPath = Annotated[str, StringConstraints(strict=True, max_length=2048, pattern=r"^/[\x21-\x7e]*$")]


class ExecProbe(Model):
    """Success is exit code 0 of a command inside the container."""

    command: tuple[Text, ...] = Field(min_length=1, max_length=256)


class HttpProbe(Model):
    """Success is a status of 200 to 399 from the replica's own address."""

    path: UrlPath = "/"
    port: PortNumber
    scheme: Literal["http", "https"] = "http"
    headers: dict[HeaderName, HeaderValue] = Field(default={}, max_length=32)


class TcpProbe(Model):
    """Success is an accepted connection."""

    port: PortNumber


class GrpcProbe(Model):
    """Success is SERVING from grpc.health.v1."""

    port: PortNumber
    service: Annotated[str, StringConstraints(strict=True, max_length=256)] = ""


Threshold = Annotated[int, Field(strict=True, ge=1, le=1000)]


class Probe(Model):
    """One check and its timing; exactly one of exec, http, tcp, grpc."""

    exec: ExecProbe | None = None
    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    grpc: GrpcProbe | None = None
    initial_delay: Duration = datetime.timedelta(0)
    period: Duration = datetime.timedelta(seconds=10)
    timeout: Duration = datetime.timedelta(seconds=1)
    success_threshold: Threshold = 1
    failure_threshold: Threshold = 3

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [name for name in ("exec", "http", "tcp", "grpc") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of exec, http, tcp, grpc ({', '.join(given) or 'none'} given)"
            )
        if self.period < MIN_PERIOD:
            raise ValueError("period: must be at least 100ms")
        if self.timeout <= datetime.timedelta(0):
            raise ValueError("timeout: must be above 0")
        return self
