"""Numbers -> words and figures for people."""


def duration(seconds: float) -> str:
    """`41 s`, `4 min 12 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def exact_duration(seconds: float) -> str:
    """As `duration`, with the digits that tell short ones apart: `0.043 s`, `8.2 s`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    return duration(seconds)


def count(number: float) -> str:
    return f"{number:,.0f}"


def size(num_bytes: int) -> str:
    """Decimal units, as disks and buckets are sold: `0.4 kB`, `9.8 MB`, `94.3 GB`."""
    for unit, worth in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= worth:
            return f"{num_bytes / worth:,.1f} {unit}"
    return f"{num_bytes / 1000:,.1f} kB"


def share(part: float, whole: float) -> str:
    """Percent with as many digits as tell it from zero: `1.8 %`, `0.004 %`, `100 %`."""
    percent = 100 * part / whole
    if percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %"


def parameters(number: int) -> str:
    """`134.5 M`, `6.7 B`; below a million in full."""
    for unit, worth in (("B", 10**9), ("M", 10**6)):
        if number >= worth:
            return f"{number / worth:.1f} {unit}"
    return f"{number:,}"
