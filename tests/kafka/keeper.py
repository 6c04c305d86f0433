"""Keeps one part of the stack for all processes of a test run: `python -m tests.kafka.keeper KIND FOLDER`.

The users of a part hold a shared lock on a file; the keeper waits for the exclusive one, which it gets when the last
user has closed the file or died, however it died. It then stops the part and ends. Its answer to the users is a file.
"""

import fcntl
import json
import shutil
import sys
from pathlib import Path

from flows.stack.broker import Broker
from flows.stack.errors import StackError
from flows.stack.registry import Registry


def main(kind: str, root: Path) -> None:
    part = Broker(root / kind) if kind == "broker" else Registry(root / kind)
    answer = root / f"{kind}.json"
    try:
        part.start()
        _write(answer, {"address": part.bootstrap if isinstance(part, Broker) else part.url, "pid": part.pid})
    except StackError as error:
        _write(answer, {"error": str(error)})
    with users_of(kind, root).open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        answer.unlink()
        part.stop()
        shutil.rmtree(part.folder)


def users_of(kind: str, root: Path) -> Path:
    return root / f"{kind}.users"


def _write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(content))
    temporary.rename(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
