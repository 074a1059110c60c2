"""Keeps the agent alive when the node runs out of memory: containers are killed first.

Called once by ``main``. Containers carry a higher score of their own, see ``runtime``.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

#: What the kernel adds to the agent's badness, of 1000; its children inherit it.
OOM_SCORE_ADJ = -500


def protect(path: Path = Path("/proc/self/oom_score_adj")) -> bool:
    """Ask the kernel to kill others first; False when it does not let us."""
    try:
        if int(path.read_text()) > OOM_SCORE_ADJ:
            path.write_text(f"{OOM_SCORE_ADJ}\n")
    except (OSError, ValueError) as error:
        log.info("not protected against running out of memory", extra={"why": str(error)})
        return False
    return True
