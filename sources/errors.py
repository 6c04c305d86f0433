"""What a source can fail with, wherever its topics live.

``SourceError`` (something is not what it should be, with place and remedy), and under it ``RetentionGap`` (a position
below the first record kept) and ``SourceAway`` (a broker that does not answer now: wait and try again).
"""


class SourceError(OSError):
    """Something cannot be read; the message says where and what to do."""


class RetentionGap(SourceError):
    """A position below the first record that is kept."""


class SourceAway(SourceError):
    """The broker does not answer now; nothing is wrong with what it holds."""
