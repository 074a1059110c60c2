"""Every limit of this room in one place, with its unit (the logger has its own: it stands alone)."""

from __future__ import annotations

#: A log is rotated at this size, and this many files are kept.
FILE_BYTES = 10 * 1024 * 1024
FILES = 5
#: Longest piece of a line that the logger writes.
PIECE_BYTES = 16 * 1024
#: What a reader takes from a file at once; all that it ever holds.
CHUNK_BYTES = 256 * 1024
#: Longest line that is put together from pieces; the rest of it stays in pieces.
MAX_JOINED_BYTES = 1024 * 1024
#: A follower looks again after this long, should the kernel's notice have been lost.
LOOK_AGAIN_S = 30.0
#: How often a follower looks when the kernel gives no notices (no inotify instance left).
LOOK_WITHOUT_NOTICE_S = 0.25
#: Logs of the dead are kept this long, and up to this size together.
KEEP_DEAD_S = 7 * 24 * 3600.0
KEEP_DEAD_BYTES = 1024 * 1024 * 1024
