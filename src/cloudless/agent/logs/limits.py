"""Every limit of this room in one place, with its unit (the logger has its own: it stands alone)."""

from __future__ import annotations

#: A log is rotated at this size, and this many files are kept.
FILE_BYTES = 10 * 1024 * 1024
FILES = 5
#: Longest piece of a line that the logger writes.
PIECE_BYTES = 16 * 1024
#: Patterns look at so much of a line, and decide by it what becomes of the rest.
JUDGED_BYTES = 64 * 1024
#: For the begin of a line that was written with pauses, ``--tail`` looks back over so much of
#: the other stream's lines.
TAIL_LOOK_BACK_BYTES = 1024 * 1024
#: What a reader takes from a file at once; all that it ever holds.
CHUNK_BYTES = 256 * 1024
#: What a log that is followed keeps of what was read last, for all its followers.
RING_BYTES = 1024 * 1024
RING_BATCHES = 256
#: What one stream holds of all its sources together; each gets its share, within these bounds.
GATHER_BYTES = 2 * 1024 * 1024
MIN_SHARE_BYTES = 32 * 1024
MAX_SHARE_BYTES = 64 * 1024
#: What one message of a stream should hold; a window of time may make it twice that.
BATCH_BYTES = 64 * 1024
#: A window of several sources may hold so many times that, so that it is not cut too finely.
MAX_BATCHES_AT_ONCE = 4
#: Messages of all streams that are sent in one turn of the loop.
MESSAGES_PER_TURN = 16
#: Turns of the loop that others get after something was sent.
TURNS_FOR_OTHERS = 6
#: Replicas that one stream reads on one node, and those of them that are gone, unless one is named.
MAX_SOURCES = 500
MAX_GONE_SOURCES = 100
#: What a container wrote may be on its way to the file so long after its end (the logger's
#: patience with words that no line feed follows, and time to write them).
LAST_WORDS_S = 0.2
#: A follower looks again after this long, should the kernel's notice have been lost.
LOOK_AGAIN_S = 30.0
#: How often a follower looks when the kernel gives no notices (no inotify instance left).
LOOK_WITHOUT_NOTICE_S = 0.25
#: Logs of the dead are kept this long, and up to this size together.
KEEP_DEAD_S = 7 * 24 * 3600.0
KEEP_DEAD_BYTES = 1024 * 1024 * 1024
