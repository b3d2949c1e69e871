"""Units as devices write them, as SenML's registry names them (RFC 8428, section 12.1), and the few conversions between them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

_SPELLINGS: Final[Mapping[str, str]] = {
    "°C": "Cel", "C": "Cel", "℃": "Cel", "celsius": "Cel", "°F": "[degF]", "F": "[degF]", "fahrenheit": "[degF]",
    "%": "%", "lx": "lx", "hPa": "hPa", "mbar": "hPa", "mmHg": "mm[Hg]", "kWh": "kWh", "µg/m³": "ug/m3", "μg/m³": "ug/m3",
}  # fmt: skip

_CONVERSIONS: Final[Mapping[tuple[str, str], Callable[[float], float]]] = {
    ("[degF]", "Cel"): lambda value: round((value - 32) * 5 / 9, 9),
    ("Cel", "[degF]"): lambda value: round(value * 9 / 5 + 32, 9),
    ("K", "Cel"): lambda value: round(value - 273.15, 9),
    ("Cel", "K"): lambda value: round(value + 273.15, 9),
    ("Pa", "hPa"): lambda value: value / 100,
    ("kPa", "hPa"): lambda value: round(value * 10, 9),
    ("mm[Hg]", "hPa"): lambda value: round(value * 1.33322387415, 9),
    ("mV", "V"): lambda value: value / 1000,
    ("V", "mV"): lambda value: value * 1000,
    ("Wh", "kWh"): lambda value: value / 1000,
    ("%RH", "%"): lambda value: value,
    ("%", "%RH"): lambda value: value,
}


def normalise_unit(unit: str) -> str:
    """The registry's name of a unit; one that is not known stays as it is."""
    return _SPELLINGS.get(unit.strip(), unit.strip())


def convert(value: float, unit: str, wanted: str) -> float | None:
    """A value in another unit; None if there is no way. A unit that was not told is taken to be the wanted one."""
    unit, wanted = normalise_unit(unit), normalise_unit(wanted)
    if unit in ("", wanted):
        return value
    change = _CONVERSIONS.get((unit, wanted))
    return None if change is None else change(value)
