"""Appends the campaign's input while the cells run: an idempotent producer in a thread of its own, one request at a time.

With more in flight, a partition whose leader is not ready yet may refuse the first and take the second: the broker then
calls the retry of the first a duplicate, and it is lost without a word.

A contract version is acknowledged before the next usage is appended, so that no cell can see that usage first.
``release`` says how much may be appended; the faults use it to have the cells at work when they strike.
"""

import threading
import time

from confluent_kafka import Producer

from flows import contract_records, topics
from tests.chaos.input import Input
from tieout import ids
from tieout.contracts import parse_contract

AT_ONCE = 40


class Feeder(threading.Thread):
    """Appends records up to what is released."""

    def __init__(self, bootstrap, prefix, partitions, given: Input):
        super().__init__(daemon=True)
        self.prefix, self.partitions, self.given = prefix, partitions, given
        self.sent = self.released = 0
        self.failure = None
        self._publications = list(given.publications)
        self._wake, self._ends = threading.Event(), threading.Event()
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "max.in.flight.requests.per.connection": 1, "message.timeout.ms": 0, "linger.ms": 5, "log_level": 0, "error_cb": lambda _: None,
            "on_delivery": self._delivered, "delivery.report.only.error": True,
        })

    @property
    def left(self):
        return len(self.given.records) - self.released

    def release(self, count):
        """Let so many more records go."""
        self.released = min(self.released + count, len(self.given.records))
        self._wake.set()

    def close(self):
        """Stop, whatever is left."""
        self._ends.set()
        self._wake.set()
        self.join()

    def run(self):
        try:
            while self.sent < len(self.given.records) and not self._ends.is_set():
                self._publish()
                end = min(self.released, self.sent + AT_ONCE, self._publications[0].before if self._publications else self.released)
                for record in self.given.records[self.sent : end]:
                    self._produce(topics.USAGE, record.partition, record.key, record.value, list(record.headers))
                self.sent = max(self.sent, end)
                self.producer.poll(0)
                if self.sent == self.released:
                    self._wake.wait(0.1)
                    self._wake.clear()
                else:
                    time.sleep(0.004)
            self._flush()
        except BaseException as failure:
            self.failure = failure
            raise

    def _publish(self):
        while self._publications and self._publications[0].before <= self.sent:
            for document in self._publications.pop(0).documents:
                value = contract_records.encode([parse_contract(document)])[0].as_py()
                self._produce(topics.CONTRACTS, ids.partition_of(document["customer_id"], self.partitions), document["customer_id"].encode(), value, [])
            self._flush()

    def _produce(self, topic, partition, key, value, headers):
        while True:
            try:
                self.producer.produce(self.prefix + topic, value, key, partition, headers=headers)
            except BufferError:
                self.producer.poll(0.1)
            else:
                return

    def _flush(self):
        while self.producer.flush(1) and not self._ends.is_set():
            pass

    def _delivered(self, error, message):
        if error is not None:
            self.failure = RuntimeError(f"{message.topic()}: {error.str()}")
