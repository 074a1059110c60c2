"""Manifests for verbs: reading ``-f`` options and following the context they are pinned to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudless.cli.context import Context
from cloudless.domain.errors import Invalid

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload


def read_all(context: Context, files: Sequence[str]) -> list[Workload]:
    """The workloads of all files; raises ``ManifestError``, and ``Invalid`` for two contexts."""
    from cloudless.sdk.manifest.files import read_paths

    manifests = read_paths(files)
    pinned = {manifest.context for manifest in manifests if manifest.context}
    if len(pinned) > 1:
        raise Invalid(
            f"the files are pinned to several contexts: {', '.join(sorted(pinned))}", hint="apply them apart"
        )
    if pinned:
        context.pin_context(pinned.pop())
    return [manifest.workload for manifest in manifests]
