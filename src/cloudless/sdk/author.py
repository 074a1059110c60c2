"""What a client says of who asks: kept with each revision that it makes, and verified by nobody.

``connect(author=...)``, else CLOUDLESS_AUTHOR, else ``user@host`` of this process.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping

#: The coordinator refuses longer ones.
MAX_AUTHOR_CHARS = 128


def find_author(environ: Mapping[str, str] | None = None) -> str:
    """The author that is not given as an argument.

    >>> find_author({"CLOUDLESS_AUTHOR": "ci/deploy #512"})
    'ci/deploy #512'
    """
    given = (os.environ if environ is None else environ).get("CLOUDLESS_AUTHOR")
    if given is not None:
        return given  # as it is: the coordinator says what is wrong with it
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = str(os.getuid())  # containers run as users that no file names
    text = f"{user}@{socket.gethostname()}"
    return "".join(letter for letter in text if letter.isprintable())[:MAX_AUTHOR_CHARS]
