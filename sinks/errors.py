"""What a sink can fail with, wherever its topics live.

``SinkError`` (what cannot be written, with place and remedy), and under it ``Fenced`` (another process holds the
partition), ``OutOfOrder`` (a commit number that does not follow) and ``CommitUnknown`` (a commit that failed, or whose
answer never came: the writer is thrown away, and what was committed is read back).
"""


class SinkError(OSError):
    """Something could not be written; the message says where and what to do."""


class Fenced(SinkError):
    """Another process writes this partition."""


class OutOfOrder(SinkError):
    """A commit number that does not follow the last one."""


class CommitUnknown(SinkError):
    """A commit failed or its answer is missing; fence, restore and seek come again, there is no other path."""
