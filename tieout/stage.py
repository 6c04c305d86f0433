"""The one shape of the domain's stages: ``step(state, batch) -> result``, a fold over batches of one partition.

A stage keeps its state in the argument and nowhere else, reads no clock (rows carry their event and record time) and
does no I/O. A state that ran ahead of a failed commit is thrown away and restored, never repaired.
"""

from dataclasses import dataclass, field
from typing import Final

FATES: Final = ("priced", "duplicate", "conflict", "rejected", "held")


@dataclass(frozen=True, slots=True)
class FinancialException:
    """Something that finance has to see: what, about which object, what to do, and the evidence."""

    kind: str
    object_type: str
    object_id: str
    customer_id: str
    message: str
    at: int
    evidence: tuple[str, ...] = ()
    evidence_positions: tuple[int, ...] = ()
    """Positions in the input whose original bytes belong to the evidence."""
    at_risk: tuple[int, str] | None = None
    """Money in 10^-12 of a currency, where it is exactly known."""


@dataclass(slots=True)
class Counts:
    """The fates of one interval, or since the start. Rows in, rows out: nothing is lost between."""

    received: int = 0
    released: int = 0
    withdrawn: int = 0
    """Events priced before that a backdated version has held or waived."""
    priced: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    held: int = 0

    def add(self, other: "Counts") -> None:
        """Add an interval's counts to the totals."""
        for name in NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def waiting(self) -> int:
        """How many events wait, by these totals."""
        return self.held - self.released

    def broken(self) -> str | None:
        """The fate equation of an interval, as words where it does not hold."""
        came, went = self.received + self.released + self.withdrawn, self.priced + self.duplicate + self.conflict + self.rejected + self.held
        if came == went:
            return None
        return f"received + released + withdrawn = {came}, but priced + duplicate + conflict + rejected + held = {went}: {self.as_dict()}"


NAMES: Final = ("received", "released", "withdrawn", "priced", "duplicate", "conflict", "rejected", "held")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected row: its position in the input, the reason code, what to do, and the field's path."""

    position: int
    reason: str
    message: str
    path: str | None = None
    schema_id: int | None = None
    value: bytes | None = None
    """The original bytes, where the row is no longer in the batch (a waived hold)."""


@dataclass(slots=True)
class Changed:
    """What a commit has to write so that the state can be restored, filled by the stage."""

    journal: list[dict[str, object]] = field(default_factory=list)
