"""The faults: each strikes once, at an instant that the seeded random draws or that the process shows from outside.

In: the running campaign and its random. Out: what was hit, in a word. The product has no switch for any of it: a
commit is recognised by the broker's open transaction while the process is frozen, its end by the relay that it passes, a
restore by the cell's own health endpoint; everything else is a window of time.
"""

import resource
import time
from contextlib import nullcontext

from flows import topics
from flows.usage_records import FLOW

STATE, SEEN, TOKEN = topics.state_topics(FLOW)
STRIKE_SECONDS = 30
"""A cell and the ticker, fed, commit within this surely."""
LEAST_FILE = 16 * 1024
"""What a cell prints must have its place; its identities take more, at the latest when it ends."""
LOOKS = 60
"""Times that a cell is frozen for a look before it is killed wherever it is."""


def uniform(run, rnd):
    """A cell is killed at any instant of its work."""
    cell = run.working()
    run.wait(rnd.uniform(0, 1.2))
    run.kill(cell)
    return "uniform"


def first_second(run, rnd):
    """A cell is killed within a second of its first sign of life."""
    cell = run.starting()
    run.until(lambda: cell.ended or cell.health() is not None, "a sign of life")
    run.wait(rnd.uniform(0, 1))
    run.kill(cell)
    return "first second"


def in_restore(run, rnd):
    """A cell is killed between its fence and the end of its restore."""
    cell = run.starting()
    run.until(lambda: cell.ended or cell.health() is not None, "a sign of life")
    run.wait(rnd.uniform(0, 0.25))
    hit = cell.restoring()
    run.kill(cell)
    return "restore" if hit else "after restore"


def in_commit(run, rnd):
    """A cell is killed while one of its transactions is open on the broker."""
    cell = run.working()
    hit = _frozen_in_commit(run, rnd, cell)
    run.kill(cell)
    return "commit" if hit else "uniform"


def _frozen_in_commit(run, rnd, cell):
    """Freeze a cell while one of its transactions is open; whether that came about."""
    mine = run.partitions_of(cell)
    for look in range(LOOKS):
        run.wait(rnd.uniform(0.01, 0.06))
        if cell.ended:
            return False
        cell.freeze()
        if _open(run, mine):
            return True
        cell.wake()
        if look % 10 == 9:
            run.feed()
    return False


def _open(run, partitions, written=(SEEN, TOKEN, topics.RATED)):
    """Whether a transaction is open on the broker in some partitions."""
    written = list(written)
    return run.reader.ends(written, partitions) != run.reader.ends(written, partitions, committed=False)


def twice(run, rnd):
    """A cell is killed, and killed again while it comes back."""
    cell = run.working()
    run.wait(rnd.uniform(0, 0.6))
    run.kill(cell)
    again = run.cell(cell.ordinal)
    run.wait(rnd.uniform(0, 2.5))
    run.kill(again)
    return "twice in a row"


KILLS = {uniform: 4, first_second: 2, in_restore: 2, in_commit: 4, twice: 1}


def zombie(run, rnd):
    """A cell is frozen, replaced, and woken: it must end fenced and change nothing."""
    cell = run.working()
    run.wait(rnd.uniform(0, 0.5))
    cell.freeze()
    run.replace(cell)
    before = run.committed(run.partitions_of(cell))
    run.until(lambda: run.running[cell.ordinal].up(), "the replacement's restore")
    run.feed()
    run.until(lambda: run.committed(run.partitions_of(cell)) > before or run.done, "the replacement's commit", feeding=True)
    run.wait(rnd.uniform(0, 1))
    cell.wake()
    return run.fenced(cell, "zombie")


def take_over(run, rnd):
    """A cell is replaced while it works: it must end fenced."""
    cell = run.working()
    run.wait(rnd.uniform(0, 0.5))
    run.replace(cell)
    return run.fenced(cell, "take-over")


def frozen_past_the_timeout(run, rnd):
    """A cell is frozen amid a commit until the broker has aborted that, and nobody replaces it."""
    cell = run.working()
    mine = run.partitions_of(cell)
    run.expect(cell, "fenced")
    _frozen_in_commit(run, rnd, cell)
    cell.freeze()
    run.wait(1)  # an end of the transaction that was on its way has come
    hit = not cell.ended and _open(run, mine)
    run.until(lambda: not _open(run, mine), "the broker's end of a transaction that nobody ends", pause=0.3)
    cell.wake()
    return f"frozen past the timeout, {'in a commit' if hit else 'idle'}"


def broker_killed(run, rnd):
    """The broker dies and comes back on what its disk holds."""
    run.feed()
    run.wait(rnd.uniform(0, 0.5))
    run.broker.kill()
    run.wait(rnd.choice((0.1, 1, rnd.uniform(2, 12))))
    run.broker.start()
    return "broker killed"


def broker_paused(run, rnd):
    """The broker hangs: connections stay open and nothing answers."""
    run.feed()
    run.wait(rnd.uniform(0, 0.5))
    run.broker.pause()
    run.wait(rnd.choice((1, 5, rnd.uniform(8, 30))))
    run.broker.resume()
    return "broker paused"


def connections_cut(run, rnd):
    """All connections of the cells end, and new ones end at once for a while."""
    run.feed()
    run.wait(rnd.uniform(0, 0.5))
    for _, proxy in run.ways:
        proxy.cut()
    run.wait(rnd.choice((0.1, 2, rnd.uniform(5, 15))))
    for _, proxy in run.ways:
        proxy.heal()
    return "connections cut"


def connections_slowed(run, rnd):
    """Little gets through, and late."""
    run.feed()
    for _, proxy in run.ways:
        proxy.slow(rnd.choice((30, 100, 300)))
        proxy.latency(rnd.choice((50, 200, 1000)), 50)
    run.wait(rnd.uniform(4, 12))
    for _, proxy in run.ways:
        proxy.heal()
    return "connections slowed"


BROKER = [broker_killed, broker_paused]
NETWORK = [broker_killed, connections_cut, broker_paused, connections_slowed]


def commit_done(run, rnd):
    """The broker does a commit of one cell, and of the ticker, and nothing that it answers comes until the client has given up."""
    return _commit_unanswered(run, rnd, done=True)


def commit_lost(run, rnd):
    """A commit of one cell, and of the ticker, does not reach the broker, and nothing else does until the client has given up."""
    return _commit_unanswered(run, rnd, done=False)


def _commit_unanswered(run, rnd, *, done):
    """What the broker made of the commit is asked of the broker; the other cells are killed meanwhile."""
    cell = run.working()
    mine, relay = run.partitions_of(cell), run.ways[cell.ordinal].relay
    relays = [relay, *([run.ticker.way.relay] if run.ticker is not None else [])]
    run.wait(rnd.uniform(0, 1))
    for one in relays:
        one.arm(done=done)
    _bounded(run, lambda: all(one.struck.is_set() for one in relays) or run.done, STRIKE_SECONDS, "commits", feeding=True)
    if not relay.struck.is_set():
        for one in relays:
            one.heal()
        return "commit unanswered, missed"
    cell = run.cell(cell.ordinal)
    ahead = _bounded(run, lambda: run.ahead_of(cell), 10 if done else 1, "what the broker makes of a commit")
    if run.ticker is not None:
        run.report.hits[f"ticker unanswered, {_of_the_ticker(run)}"] += 1
    with run.spared(cell.ordinal):
        deadline = time.monotonic() + run.plan.unanswered_seconds
        while (left := deadline - time.monotonic()) > 0:
            if run.kills < run.plan.kills:
                run.report.hits[uniform(run, rnd)] += 1
            else:
                run.wait(min(left, 5))
    for one in relays:
        one.heal()
    before = run.committed(mine)
    run.until(lambda: cell.ended or run.committed(mine) > before or run.done, "the commits after an unanswered one", feeding=True)
    return f"commit unanswered, {'done' if ahead else 'not done'}"


def _bounded(run, holds, seconds, what, **waiting):
    """Wait for something no longer than so many seconds; whether it came."""
    deadline, found = time.monotonic() + seconds, False

    def ended():
        nonlocal found
        found = holds()
        return found or time.monotonic() > deadline

    run.until(ended, what, **waiting)
    return found


def _of_the_ticker(run):
    """What became of its commit, if one was struck."""
    if not run.ticker.way.relay.struck.is_set():
        return "missed"
    return "not done" if _open(run, [0], [topics.COMMANDS]) else "done"


UNANSWERED = [commit_done, commit_lost]


def disk_full(run, rnd):
    """No file of a cell may grow: it may end with a word about its folder, and goes on when it is started again."""
    cell = run.working()
    resource.prlimit(cell.process.pid, resource.RLIMIT_FSIZE, (LEAST_FILE, -1))
    run.expect(cell, "disk full")
    uncommitted = run.committed(run.partitions_of(cell)) + run.slice // 4
    run.until(lambda: cell.ended or run.committed(run.partitions_of(cell)) > uncommitted or run.done, "an end, or commits, on a full disk", feeding=True)
    if not cell.ended:
        cell.stop()
    run.until(lambda: cell.ended, "the end on a full disk")
    return "disk full" if str(cell.cache) in cell.words else "disk full, nothing to write"


def rescaled(run, rnd):
    """Partitions move between cells: to one fewer, and back after a kill among them."""
    cells = run.plan.cells
    run.rescale(cells - 1, in_order=rnd.random() < 0.5)
    run.report.hits[uniform(run, rnd)] += 1
    run.rescale(cells, in_order=rnd.random() < 0.5)
    return "rescaled"


def ticker_killed(run, rnd):
    """The ticker is killed at any instant, and another one goes on."""
    run.feed()
    run.wait(rnd.uniform(0, 1.5))
    run.ticker.life.kill()
    run.wait(rnd.uniform(0, 1))
    run.ticker.start()
    return "ticker killed"


def ticker_killed_in_commit(run, rnd):
    """The ticker is killed while its transaction is open on the broker, and another one goes on."""
    life = run.ticker.life
    for _ in range(LOOKS):
        run.feeder.release(max(1, run.slice // 50))  # another minute
        run.wait(rnd.uniform(0.01, 0.06))
        life.freeze()
        if hit := run.reader.ends(topics.COMMANDS, [0]) != run.reader.ends(topics.COMMANDS, [0], committed=False):
            break
        life.wake()
    life.kill()
    run.wait(rnd.uniform(0, 1))
    run.ticker.start()
    return "ticker killed in a commit" if hit else "ticker killed"


def ticker_replaced(run, rnd):
    """The ticker is frozen, replaced, and woken: it must end fenced."""
    run.feed()
    run.wait(rnd.uniform(0, 0.5))
    old = run.ticker.life
    old.freeze()
    before = run.reader.ends(topics.COMMANDS, [0])
    run.ticker.start(troubled=True)
    run.until(lambda: run.reader.ends(topics.COMMANDS, [0]) != before or run.done, "the other ticker's commit", feeding=True)
    old.wake()
    return run.ticker_fenced(old)


TICKER = [ticker_killed, ticker_killed_in_commit, ticker_replaced]
GENTLE = {*KILLS, disk_full, ticker_killed, ticker_killed_in_commit}
"""After these nobody else may end fenced, or hang."""


def timed(fault, run, rnd):
    """What a fault hit, and how long it took."""
    began = time.monotonic()
    with nullcontext() if fault in GENTLE else run.trouble():
        return fault(run, rnd), time.monotonic() - began
