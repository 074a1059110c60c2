"""``python -m cloudless`` is ``cloudless``."""

from __future__ import annotations

import sys

from cloudless.cli import main

if __name__ == "__main__":
    sys.exit(main())
