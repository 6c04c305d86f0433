"""Local files of a cell: they spare a restart the reading of the identities, and are never the truth."""

import shutil

import pytest

from flows import topics, usage
from flows.verification import verify
from tests.flow import folders
from tests.kafka import installations

ROWS = 100


@pytest.fixture
def place(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    installations.put(place, folders.events(21, 2000, 8), [folders.contract(f"k{i}") for i in range(8)])
    return place


@pytest.mark.parametrize("harm", ["none", "deleted", "torn", "of another log"])
def test_what_came_before_is_still_a_duplicate_whatever_became_of_the_files(place, tmp_path, harm, broker, topic_prefix):
    installations.cell(place, rows=ROWS, cache=tmp_path).attempt()
    if harm == "deleted":
        shutil.rmtree(tmp_path / "usage")
    elif harm == "torn":
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.stat().st_size > 64:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "of another log":
        other = installations.make(broker.bootstrap, topic_prefix + "other.")
        installations.put(other, folders.events(99, 1500, 8), [folders.contract(f"k{i}") for i in range(8)])
        installations.cell(other, rows=ROWS, cache=tmp_path / "other").attempt()
        shutil.rmtree(tmp_path / "usage")
        shutil.move(tmp_path / "other" / "usage", tmp_path / "usage")
    before = sum(token.totals["duplicate"] + token.totals["conflict"] for token in installations.drain(place).values())
    installations.put(place, folders.events(21, 2000, 8))
    cell = installations.cell(place, rows=ROWS, cache=tmp_path)
    cell.attempt()
    totals = [token.totals for token in cell.tokens.values()]
    assert sum(total["received"] for total in totals) == 4000
    assert sum(total["duplicate"] + total["conflict"] for total in totals) == before + 2000
    assert [verify(place, partition)["breaks"] for partition in range(2)] == [[], []]
    ids = [value for values in installations.values(place, topics.RATED) for value in values]
    assert len(ids) == len(set(ids))


def test_a_restart_with_files_reads_only_what_they_do_not_cover(place, tmp_path, monkeypatch):
    installations.cell(place, rows=ROWS, cache=tmp_path).attempt()
    restored = []
    seen_from = usage.UsageCell._seen_from

    def counted(self, start, written):
        for number, value in seen_from(self, start, written):
            restored.append(number)
            yield number, value

    monkeypatch.setattr(usage.UsageCell, "_seen_from", counted)
    installations.cell(place, rows=ROWS, cache=tmp_path).attempt()
    covered = len(restored)
    restored.clear()
    installations.drain(place)
    assert 0 < covered < len(restored)


def test_identities_past_the_horizon_are_deleted_from_their_log(place):
    cell = installations.cell(place, rows=ROWS)
    cell.attempt()
    log = place.fence("usage", 0)
    kept = [number for number, _ in log.own(usage.SEEN, cell.tokens[0].written[usage.SEEN])]
    log.trim(usage.SEEN, cell.tokens[0].clock)
    left = [number for number, _ in log.own(usage.SEEN, cell.tokens[0].written[usage.SEEN])]
    log.close()
    assert kept[0] == 0
    assert left[0] > 0
    tokens = installations.drain(place)
    assert tokens[0].totals == cell.tokens[0].totals
