"""What the operator may set of a coordinator; ``cli.serve`` makes it from flags, file and environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from cloudless.domain.address import Address
from cloudless.domain.model import Model
from cloudless.store.errors import InvalidRequest
from cloudless.store.url import parse_store_url

#: Where the parts of a coordinator lie below its data directory.
STORE_FOLDER = "store"
CLUSTER_ID_FILE = "cluster-id"
_SHORT_FORMS = frozenset({"", "embedded", "memory"})


def _store_url(text: str) -> str:
    if text not in _SHORT_FORMS:
        try:
            parse_store_url(text)
        except InvalidRequest as error:
            raise ValueError(str(error)) from None
    return text


class CoordinatorConfig(Model):
    """Settings of one coordinator; port 0 lets the kernel choose."""

    data_dir: Path
    api_address: Address = "127.0.0.1:8080"
    http_address: Address = "127.0.0.1:8081"
    #: "embedded" (in data_dir; also when empty), "memory", or a URL that the store room knows.
    store: Annotated[str, AfterValidator(_store_url)] = ""

    @property
    def store_url(self) -> str:
        """The store to open."""
        if self.store in ("", "embedded"):
            return f"embedded://{(self.data_dir / STORE_FOLDER).absolute()}"
        return "memory://" if self.store == "memory" else self.store

    @property
    def store_kind(self) -> str:
        """The store's name for people: embedded, etcd or memory."""
        return self.store_url.partition(":")[0]

    @property
    def cluster_id_file(self) -> Path:
        """Where this data directory remembers which cluster it belongs to."""
        return self.data_dir / CLUSTER_ID_FILE
