"""Limits, windows and units: each number that several parts need, or that a user is promised, once, with its reason.

Durations are seconds, sizes are bytes. These are part of the product's promises; what a user may set per daemon is in
`settings`.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

SESSION_TIMEOUT_MIN = 1.0
SESSION_TIMEOUT_MAX = 3600.0
SESSION_TIMEOUT_DEFAULT = 60.0
OPEN_TIMEOUT_MAX = 3600.0

CONTROL_FRAME_LIMIT = 64 * 1024
"""Largest hello or control frame. The daemon decodes nothing larger: a frame can grow 72-fold in memory."""
REPLY_FRAME_LIMIT = 2**31 - 1
"""Of the daemon's answers, all that a header can say: it is trusted, and a list of sessions may be long."""
ATTACH_FRAME_LIMIT = 2 * CONTROL_FRAME_LIMIT
"""Of the first frame on a connection to a worker: it may carry what two control frames have brought."""

HELLO_TIMEOUT = 2.0
"""A client that has connected must have said hello within this time."""

HOOK_TIMEOUT = 2.0
"""`on_end` may take this long. `unload` has `UNLOAD_TIMEOUT` after it."""

UNLOAD_TIMEOUT = 1.0

STOP_GRACE = HOOK_TIMEOUT + UNLOAD_TIMEOUT + 0.5
"""A worker that was told to stop is killed when it is still there after this time. Below the five seconds
in which the whole daemon stops."""

CANCEL_GRACE = 10.0
"""A cancelled call has this long to stop, unless the app's `cancel_grace` says otherwise. Then its process is asked for
its stack, and `DUMP_TIME` later terminated; `TERM_GRACE` after that it is killed."""
CANCEL_GRACE_MAX = 3600.0
MAX_LIFETIME_MAX = 10 * 365 * 86_400.0
LIFETIME_RECHECK = 1.0
"""A session that was busy when its lifetime was over is looked at again after this time."""
COUNT_MAX = 2**53
"""Of calls, bytes or workers, as an app may limit them."""
DUMP_TIME = 0.5
TERM_GRACE = 1.0

QUICK_CANCEL = 0.5
"""The grace of a call whose session nobody waits for: the daemon stops, or the client has left before it was served."""

EXPIRE_ANSWER_TIMEOUT = 10.0
"""A worker that the board shows idle must answer the question "may you expire?" within this time. It alone knows of a
call that waits to be read, and code of the app's may keep it from answering: a task that blocks its loop, a thread.
"""

EXPLAIN_TIMEOUT = 2.0
"""How long the daemon holds back an answer about a session whose connection broke, for the exit status."""

DAEMON_LOG_LIMIT = 10 * MIB
"""Of a daemon in the background: a longer log is begun anew, and the old one kept beside it."""

BACKOFF_FIRST = 0.5
BACKOFF_LIMIT = 30.0
"""A broken app is tried again after 0.5 s, doubling to 30 s; an edit clears the pause."""

REFILL_QUIET = 0.005
REFILL_LATEST = 0.05
"""A pool makes new warm workers when nobody has taken one for 5 ms, or 50 ms after the first was taken: a fork beside
a session's first call would slow it down. Who finds no warm worker does not wait for that."""

MEMORY_RECHECK = 1.0
"""While the machine is short of memory, or of what else a process needs, waiting opens are looked at again this often.
"""

SPARE_DESCRIPTORS = 8
"""No process is made with fewer file descriptors than this left: who asks for the status, or for the end, needs one."""

SPARE_IDLE = 60.0
"""A worker of stateless calls that has had none for so long is let go."""

LABELS_MAX = 64
LABEL_KEY_MAX = 128
LABEL_VALUE_MAX = 256
NAME_MAX = 128
DESCRIPTION_MAX = 1000
TAGS_MAX = 64
"""What may be said of a session, in entries and characters: it is kept in the daemon for as long as the session is
remembered."""

PAGE_DEFAULT = 100
PAGE_MAX = 1000
"""Sessions in one answer to a list."""

LOG_CAP_MIN = 4096

FINISHED_LOGS_LIMIT = 1024 * MIB
"""Bytes on disk of what sessions have printed that are over, all together: each may have twice its cap, and ten
thousand are remembered. The oldest go first.
"""

END_VALUES_LIMIT = 64 * MIB
"""Bytes of what the ends of sessions have returned, all together. The latest are kept."""

RECORDS_LIMIT = 10_000
RECORDS_AGE = 24 * 3600.0
"""Ended and expired sessions are remembered for so many, and so long, that errors can say which."""

AUTOSTART_IDLE_EXIT = 600.0
"""A daemon that a client started leaves after this time without a session or a request."""
