"""Benchmarks: every module in this folder is one, named like the module, with `run() -> list[Result]`.

`python -m benchmarks` lists them; `python -m benchmarks NAME` prints a table, `--json` one line of JSON. A module with `CASES` takes one
as the argument of `run`: `NAME:CASE`. Where there is something to compare with, it is measured in the same run, so that a ratio means
the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured figure: the median, if it was measured several times."""

    case: str
    value: float
    unit: str
    reference: str | None = None  # what `value` is compared with
    reference_value: float | None = None  # in the same unit

    @property
    def ratio(self) -> float | None:
        """How many times the reference: more is better for rates, less for times."""
        return self.value / self.reference_value if self.reference_value else None

    def to_json(self) -> dict[str, str | float | None]:
        return {
            "case": self.case,
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": self.reference_value,
            "ratio": self.ratio,
        }
