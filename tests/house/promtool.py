"""Prometheus' own checker, from Debian's package where the machine has none.

The package is unpacked and not installed: installing it starts a Prometheus server on many machines.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "promtool"
ADVICE = "no promtool: install Prometheus (Debian, Ubuntu: apt-get install prometheus) so that it is on the PATH"


def path() -> str:
    """The path of promtool; AssertionError says what to install."""
    found = shutil.which("promtool")
    if found:
        return found
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        binary = CACHE / "promtool"
        if not binary.exists():
            _unpack(binary)
        return str(binary)


def _unpack(binary: Path) -> None:
    assert shutil.which("apt-get"), ADVICE
    if not _downloaded() and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        _downloaded()
    packages = sorted(CACHE.glob("prometheus_*.deb"))
    assert packages, ADVICE
    subprocess.run(["dpkg-deb", "--extract", packages[-1], CACHE / "unpacked"], check=True)
    (CACHE / "unpacked/usr/bin/promtool").rename(binary)
    shutil.rmtree(CACHE / "unpacked")
    packages[-1].unlink()


def _downloaded() -> bool:
    return subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=CACHE, capture_output=True).returncode == 0
