"""How a line is made: its key, its service period, its one rounding.

In: a version, the charge (if any), an exact amount. Out: a ``Line`` whose ``amount`` is rounded half up to the minor unit
of its currency. Source: docs/semantics.md sections 1 and 5.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from tieout import money
from tieout.contracts import Charge, ContractVersion
from tieout.invoicing.records import Group, Kind, Line, LineKey
from tieout.period import Period


def line(
    version: ContractVersion, charge: Charge | None, kind: Kind, period: Period, service: tuple[int, int], exact: Fraction,
    *, ref: tuple[str, ...] = (), group: Group | None = None, obligation_id: str | None = None,
) -> Line:  # fmt: skip
    """One line of a version; ``charge`` None for what belongs to the contract as a whole."""
    entity = version.legal_entity_id if charge is None or charge.legal_entity_id is None else charge.legal_entity_id
    key = LineKey(period.start_us, "" if charge is None else charge.charge_id, group, kind, ref, service[0], entity, version.currency)
    return Line(
        key, service[1], period.label, (version.version,), 0, 0, exact, minor(exact, version.currency),
        product_id=None if charge is None else charge.product_id,
        obligation_id=obligation_id if charge is None else charge.obligation_id,
        kind=kind, start_us=service[0],
    )


def minor(exact: Fraction | Decimal, currency: str) -> int:
    """An exact amount in minor units, half up."""
    scaled = Fraction(exact) * 10 ** money.minor_unit(currency)
    return money.round_ratio(scaled.numerator, scaled.denominator)


def major(amount: int, currency: str) -> Fraction:
    """Minor units as an exact amount."""
    return Fraction(amount, 10 ** money.minor_unit(currency))


def total(lines: Iterable[Line]) -> int:
    """The sum of rounded amounts."""
    return sum(one.amount for one in lines)
