"""Which tiers of a price a usage line used, for the reader of the invoice.

In: a charge and the quantity of a billing period. Out: for each tier entered its bound, its quantity in billing units
and what it charges, net of the percent discount and before the maximum. Empty where there are no tiers, or where the
quantity of the period does not say which ones were used (values kept, levels, walked prices, ``reset: never``).
Source: docs/interfaces.md (invoice line).
"""

from collections.abc import Sequence
from fractions import Fraction

from tieout.contracts import Charge, Graduated, GraduatedPercentage, RateTier, Tier, Volume
from tieout.invoicing.records import TierUse
from tieout.rating.adjustments import QUANTITY, chargeable, net
from tieout.rating.kinds import kind_of


def tiers_used(charge: Charge, quantity: int) -> tuple[TierUse, ...]:
    """The tiers that a period's quantity (10^-9) has used."""
    model = charge.price
    if not isinstance(model, Graduated | GraduatedPercentage | Volume) or kind_of(charge) not in ("sum", "count") or charge.reset == "never":
        return ()
    billed = chargeable(charge, Fraction(max(quantity, 0), QUANTITY))
    tiers: Sequence[Tier | RateTier] = model.tiers
    used, low = [], Fraction(0)
    for place, tier in enumerate(tiers):
        bound = None if tier.up_to is None else Fraction(tier.up_to)
        last = bound is None or billed <= bound
        entered = billed > low or (place == 0 and model.flat_at_zero)
        if entered and (last or not isinstance(model, Volume)):
            inside = billed if isinstance(model, Volume) else (billed if last else bound or billed) - low
            amount = (inside * _price(tier) + Fraction(tier.flat_fee)) * net(charge)
            up_to = None if bound is None else int(bound * QUANTITY)
            used.append(TierUse(up_to, (inside.numerator, inside.denominator), (amount.numerator, amount.denominator)))
        if bound is None or last:
            break
        low = bound
    return tuple(used)


def _price(tier: Tier | RateTier) -> Fraction:
    return Fraction(tier.rate_percent) / 100 if isinstance(tier, RateTier) else Fraction(tier.unit_price)
