"""Durations, ages and moments as text for people."""

from datetime import datetime, timedelta

#: Seconds of each unit, and its symbol, the largest first.
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def format_duration(span: timedelta) -> str:
    """Format a span in at most two units: `850 ms`, `3.2 s`, `2 min 5 s`, `4 d 3 h`."""
    seconds = span.total_seconds()
    if seconds < 0:
        return f"-{format_duration(-span)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    return _in_two_units(round(seconds))


def _in_two_units(seconds: int) -> str:
    rank, (size, name) = next((rank, unit) for rank, unit in enumerate(UNITS) if seconds >= unit[0])
    whole, rest = divmod(seconds, size)
    if rank + 1 < len(UNITS) and (smaller := rest // UNITS[rank + 1][0]):
        return f"{whole} {name} {smaller} {UNITS[rank + 1][1]}"
    return f"{whole} {name}"


def format_age(moment: datetime, now: datetime) -> str:
    """Format how long ago a moment was, in one unit, never below 0 (clocks differ a little)."""
    seconds = max(0, int((now - moment).total_seconds()))
    size, name = next((unit for unit in UNITS if seconds >= unit[0]), UNITS[-1])
    return f"{seconds // size} {name}"


def format_moment(at: datetime) -> str:
    """Format a moment in full, in UTC: `2026-11-21 09:04:05 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def format_estimate(span: timedelta) -> str:
    """Format an estimated span: `under a minute`, `about 12 min`, `about 3.5 h`, `about 4 d`."""
    minutes = span.total_seconds() / 60
    if minutes < 1:
        return "under a minute"
    if minutes < 90:
        return f"about {minutes:.0f} min"
    if minutes < 36 * 60:
        return f"about {_roughly(minutes / 60)} h"
    return f"about {_roughly(minutes / 1440)} d"


def _roughly(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:.0f}"
