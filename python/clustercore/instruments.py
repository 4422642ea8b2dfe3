"""What is traded: tick, money value of a point, costs.

Ten futures are built in. Anything else is an ``Instrument`` that you write down, or one made from a
Databento definition record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import SupportsIndex

from clustercore.errors import ConfigError, DataError

__all__ = ["Instrument", "SymbolParts", "parse_symbol"]

NANOS_PER_POINT = 10**9

_MONTH_CODES = "FGHJKMNQUVXZ"
_OUTRIGHT = re.compile(rf"^([A-Z0-9]{{1,6}}?)([{_MONTH_CODES}])(\d{{1,2}})$")
_GENERIC = re.compile(r"^([A-Z0-9]{1,6})(?:\.(.+))?$")


@dataclass(frozen=True)
class SymbolParts:
    """What a symbol says of itself.

    Parameters
    ----------
    root : str
        The product, such as ``ES``.
    kind : {"outright", "spread", "continuous", "parent", "root", "other"}
        One contract month, a calendar spread, ``ES.c.0``, ``ES.FUT``, ``ES`` alone, anything else.
    month : int, optional
        Month of expiry, 1 to 12, of an outright.
    year_digits : str, optional
        One or two last digits of the year of an outright; one digit repeats every ten years.
    """

    root: str
    kind: str
    month: int | None = None
    year_digits: str | None = None


def parse_symbol(symbol: str) -> SymbolParts:
    """Take a symbol apart.

    Examples
    --------
    >>> parse_symbol("ESZ5")
    SymbolParts(root='ES', kind='outright', month=12, year_digits='5')
    >>> parse_symbol("NQM5-NQU5").kind
    'spread'
    >>> parse_symbol("ES.c.0").kind
    'continuous'
    """
    if "-" in symbol or ":" in symbol:
        leg = _OUTRIGHT.match(re.split(r"[-:]", symbol, maxsplit=1)[0])
        return SymbolParts(leg.group(1) if leg else symbol, "spread")
    outright = _OUTRIGHT.match(symbol)
    if outright:
        root, code, year_digits = outright.groups()
        return SymbolParts(root, "outright", _MONTH_CODES.index(code) + 1, year_digits)
    generic = _GENERIC.match(symbol)
    if generic is None:
        return SymbolParts(symbol, "other")
    root, rest = generic.groups()
    if rest is None:
        return SymbolParts(root, "root")
    if rest in {"FUT", "OPT"}:
        return SymbolParts(root, "parent")
    if re.fullmatch(r"[cnv]\.\d+", rest):
        return SymbolParts(root, "continuous")
    return SymbolParts(root, "other")


@dataclass(frozen=True)
class Instrument:
    """A tradable instrument.

    Parameters
    ----------
    root : str
        The product, such as ``ES``.
    tick_size : float or str
        Smallest price step in points; must be a whole number of 1e-9.
    point_value : float
        US dollars for one point and one contract.
    commission : float
        US dollars for one contract and one side.
    margin : float, optional
        US dollars for one contract; caps the size when given.
    calendar : str, default "globex_equity"
        Which session table the instrument follows.
    check_tick : bool, default True
        Refuse prices that are not on the tick grid.
    allow_negative : bool, default False
        Accept prices of zero and below; logarithmic volatilities are then null.

    Examples
    --------
    >>> Instrument.builtin("ES").tick_nanos
    250000000
    >>> Instrument("ZN", tick_size="0.015625", point_value=1000, commission=2.5).tick_nanos
    15625000
    """

    root: str
    tick_size: float
    point_value: float
    commission: float
    margin: float | None = None
    calendar: str = "globex_equity"
    check_tick: bool = True
    allow_negative: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.root, str) or not self.root:
            raise ConfigError(
                "the instrument needs a name",
                field="instrument.root",
                found=repr(self.root),
                expected='text such as "ES"',
            )
        nanos = _exact_nanos(self.tick_size)
        object.__setattr__(self, "tick_size", nanos / NANOS_PER_POINT)
        object.__setattr__(self, "point_value", _number("point_value", self.point_value, above=0.0))
        object.__setattr__(self, "commission", _number("commission", self.commission, at_least=0.0))
        if self.margin is not None:
            object.__setattr__(self, "margin", _number("margin", self.margin, above=0.0))

    @property
    def tick_nanos(self) -> int:
        """Tick size in 1e-9 points."""
        return round(self.tick_size * NANOS_PER_POINT)

    @property
    def tick_value(self) -> float:
        """US dollars for one tick and one contract."""
        return self.tick_size * self.point_value

    @classmethod
    def builtin(cls, root: str) -> Instrument:
        """Return one of the built-in instruments.

        Examples
        --------
        >>> Instrument.builtin("MES").point_value
        5.0
        """
        found = _BUILTIN.get(root)
        if found is None:
            raise ConfigError(
                "there is no built-in instrument of this name; pass instrument=Instrument(...)",
                field="instrument",
                found=repr(root),
                expected="one of " + " ".join(sorted(_BUILTIN)),
            )
        return found

    @classmethod
    def roots(cls) -> tuple[str, ...]:
        """Return the roots of the built-in instruments.

        Examples
        --------
        >>> "NQ" in Instrument.roots()
        True
        """
        return tuple(_BUILTIN)

    @classmethod
    def for_symbol(cls, symbol: str) -> Instrument:
        """Return the built-in instrument that a symbol belongs to.

        Examples
        --------
        >>> Instrument.for_symbol("MESZ5").root
        'MES'
        >>> Instrument.for_symbol("ES.c.0").root
        'ES'
        """
        parts = parse_symbol(symbol)
        if parts.kind != "spread" and parts.root in _BUILTIN:
            return _BUILTIN[parts.root]
        raise ConfigError(
            "no built-in instrument fits this symbol; pass "
            "instrument=Instrument(root, tick_size, point_value, commission)",
            field="instrument",
            found=repr(symbol),
            expected="a symbol of " + " ".join(sorted(_BUILTIN)),
        )

    @classmethod
    def from_definition(
        cls, row: Mapping[str, object], commission: float | None = None
    ) -> Instrument:
        """Make an instrument from a row of a Databento definition.

        Parameters
        ----------
        row : mapping
            ``asset`` (or ``raw_symbol``), ``min_price_increment`` and ``unit_of_measure_qty``, the
            last two as int in 1e-9 (as in DBN) or as float in units.
        commission : float, optional
            US dollars for one contract and side; that of the built-in instrument when left out.

        Examples
        --------
        >>> Instrument.from_definition(
        ...     {
        ...         "asset": "ES",
        ...         "min_price_increment": 250_000_000,
        ...         "unit_of_measure_qty": 50_000_000_000,
        ...     }
        ... ).point_value
        50.0
        """
        root = str(row.get("asset") or parse_symbol(str(row.get("raw_symbol", ""))).root)
        known = _BUILTIN.get(root)
        if commission is None:
            if known is None:
                raise ConfigError(
                    "a definition does not state the commission; pass commission=",
                    field="instrument.commission",
                    found="None",
                    expected="US dollars for one contract and side",
                )
            commission = known.commission
        tick_size = _definition_value(row, "min_price_increment")
        point_value = _definition_value(row, "unit_of_measure_qty")
        if known is not None:
            return replace(
                known, tick_size=tick_size, point_value=point_value, commission=commission
            )
        return cls(root, tick_size, point_value, commission)

    def check_definition(self, row: Mapping[str, object]) -> None:
        """Raise ``DataError`` where a Databento definition contradicts this instrument."""
        for column, ours in (
            ("min_price_increment", self.tick_size),
            ("unit_of_measure_qty", self.point_value),
        ):
            theirs = _definition_value(row, column)
            if not math.isclose(theirs, ours, rel_tol=1e-12):
                raise DataError(
                    f"the definition of {row.get('raw_symbol', self.root)} contradicts the "
                    f"instrument {self.root}",
                    column=column,
                    found=f"{theirs:g}",
                    expected=f"{ours:g}",
                )


def _exact_nanos(tick_size: float | str) -> int:
    try:
        nanos = Decimal(str(tick_size)) * NANOS_PER_POINT
    except InvalidOperation:
        nanos = Decimal(-1)
    if not nanos.is_finite() or nanos <= 0 or nanos != nanos.to_integral_value():
        raise ConfigError(
            "the tick size must be a positive whole number of 1e-9 points",
            field="instrument.tick_size",
            found=repr(tick_size),
            expected='a value such as 0.25 or "0.015625"',
        )
    return int(nanos)


def _number(
    name: str, value: float, *, above: float | None = None, at_least: float | None = None
) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    low = (above is not None and number <= above) or (at_least is not None and number < at_least)
    if not math.isfinite(number) or low:
        bound = f"above {above:g}" if above is not None else f"of at least {at_least:g}"
        raise ConfigError(
            "the value is out of range",
            field=f"instrument.{name}",
            found=repr(value),
            expected=f"a finite number {bound}",
        )
    return number


def _definition_value(row: Mapping[str, object], column: str) -> float:
    value = row.get(column)
    if isinstance(value, float):
        return value
    if not isinstance(value, SupportsIndex):
        raise DataError(
            "the definition lacks a value",
            column=column,
            found=repr(value),
            expected="an int in 1e-9 or a float",
        )
    return int(value) / NANOS_PER_POINT


_BUILTIN = {
    instrument.root: instrument
    for instrument in (
        Instrument("ES", 0.25, 50.0, 2.50),
        Instrument("MES", 0.25, 5.0, 0.50),
        Instrument("NQ", 0.25, 20.0, 2.50),
        Instrument("MNQ", 0.25, 2.0, 0.50),
        Instrument("YM", 1.0, 5.0, 2.50),
        Instrument("MYM", 1.0, 0.5, 0.50),
        Instrument("RTY", 0.10, 50.0, 2.50),
        Instrument("M2K", 0.10, 5.0, 0.50),
        Instrument("CL", 0.01, 1000.0, 2.50),
        Instrument("GC", 0.10, 100.0, 2.50),
    )
}
