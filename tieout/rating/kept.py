"""Kept values: ``max``, ``latest`` and ``unique_count``, whose running quantity is not a sum.

In: the events of one (contract, charge, group, billing period, version). Out: how the version's price moves with
each event. The period's values are kept, so that a void is exact; a bucketed maximum prices each hour's or day's own.
Source: docs/semantics.md section 4 (aggregations; ``B`` is empty, each version starts anew).
"""

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field

from tieout.rating.adjustments import QUANTITY, Price

Value = tuple[int, int, int]
"""(time, position, quantity); for ``max`` the first two are 0."""


@dataclass(slots=True)
class Kept:
    """The values of one version in a period, by bucket (0 where there are none)."""

    values: dict[int, list[Value]] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    prices: dict[int, int] = field(default_factory=dict)

    def add(self, bucket: int, value: Value, price: Price) -> int:
        """Add a value; the move of the version's price in 10^-12."""
        insort(self.values.setdefault(bucket, []), value)
        return self._priced(bucket, self.values[bucket][-1][2], price)

    def remove(self, bucket: int, value: Value, price: Price) -> int:
        """Take a value out."""
        values = self.values[bucket]
        del values[bisect_left(values, value)]
        if not values:
            del self.values[bucket]
            return -self.prices.pop(bucket)
        return self._priced(bucket, values[-1][2], price)

    def add_name(self, name: str, price: Price) -> int:
        """Count a property's value."""
        self.names[name] += 1
        return self._priced(0, len(self.names) * QUANTITY, price)

    def remove_name(self, name: str, price: Price) -> int:
        """Uncount it."""
        self.names[name] -= 1
        if not self.names[name]:
            del self.names[name]
        if not self.names:
            return -self.prices.pop(0)
        return self._priced(0, len(self.names) * QUANTITY, price)

    def _priced(self, bucket: int, quantity: int, price: Price) -> int:
        old, new = self.prices.get(bucket, 0), price.at(quantity)
        self.prices[bucket] = new
        return new - old
