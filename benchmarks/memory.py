"""What memory a process of a benchmark holds."""

from pathlib import Path


def resident(name: str) -> int:
    """``VmRSS`` (now), its parts ``RssAnon`` and ``RssFile``, or ``VmHWM`` (at most) of this process, in MB.

    All begin with its program; the peak that ``getrusage`` tells begins with the process that started it.
    """
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) // 1024
