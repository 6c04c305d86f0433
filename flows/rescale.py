"""Another number of cells: every partition is fenced and told the next generation, in a token of its own.

What ran as an older generation ends (it is fenced) and may not start again. Nothing is moved: a partition's state is
in its topics, whichever cell reads them. Killed half way it is run again; what it did stands.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from flows import token as tokens
from flows import topics
from flows.kafka_place import KafkaPlace
from flows.token import Token
from schemas import segments
from tieout.stage import Counts


def rescale(place: KafkaPlace, flow: str, partitions: int, cells: int) -> int:
    """Begin the next generation with this many cells in all partitions; its number."""
    topic = topics.state_topics(flow)[2]
    logs = [place.fence(flow, partition) for partition in range(partitions)]
    try:
        found = [log.last(topic) for log in logs]
        last = [tokens.decode(record["value"])[0] if record.num_rows else Token(flow, partition, 0) for partition, record in enumerate(found)]
        generation = max(token.generation for token in last) + 1
        for log, token in zip(logs, last, strict=True):
            following = _following(token, generation, cells)
            record = segments.records(pa.array([tokens.encode(following)], pa.large_binary()), None, np.array([following.clock]))
            log.commit(following.sequence, {topic: record}, following.read(), None)
    finally:
        for log in logs:
            log.close()
    return generation


def _following(token: Token, generation: int, cells: int) -> Token:
    counts = dict.fromkeys(token.counts or Counts().as_dict(), 0)
    totals = token.totals or counts | {"waiting": 0}
    following = replace(
        token, sequence=token.sequence + 1, generation=generation, cells=cells, counts=counts, totals=totals, digests={}, previous_chain=token.chain
    )
    return replace(following, chain=following.linked())
