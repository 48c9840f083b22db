"""Numbers as people read them."""


def plain(number: float) -> str:
    """Two digits or all before the point, never an exponent: `0.026`, `8.2`, `943`, `3,750`."""
    if abs(number) >= 10:
        return f"{number:,.0f}"
    text = f"{number:.2g}"
    if "e" in text:
        return f"{number:.6f}".rstrip("0").rstrip(".")
    return text


def plural(number: int, noun: str) -> str:
    """`1 epoch`, `1,200 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def time_of(seconds: float) -> str:
    """`0.6 s`, `46 min`, `3.2 h`: two digits in the unit that suits the size."""
    unit, worth = _time_unit(seconds)
    return f"{plain(seconds / worth)} {unit}"


def time_range(seconds: float, low: float, high: float) -> str:
    """`46 min (34 to 65 min)`: all in the unit of the first."""
    unit, worth = _time_unit(seconds)
    between = f"{plain(low / worth)} to {plain(high / worth)} {unit}"
    return f"{plain(seconds / worth)} {unit} ({between})"


def size_of(num_bytes: float) -> str:
    """`3.3 GB`, `77 MB`: two digits, in units of 1000 as disks and stores count."""
    for unit, worth in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= worth:
            return f"{plain(num_bytes / worth)} {unit}"
    return f"{num_bytes:,.0f} bytes"


def _time_unit(seconds: float) -> tuple[str, float]:
    if seconds < 120:
        return "s", 1.0
    if seconds < 2 * 3600:
        return ("min", 60.0)
    return ("h", 3600.0)
