"""Numbers as people read them."""


def plain(number: float) -> str:
    """Two digits or all before the point, never an exponent: `0.026`, `8.2`, `943`, `3,750`."""
    if abs(number) >= 10:
        return f"{number:,.0f}"
    text = f"{number:.2g}"
    return f"{number:.6f}".rstrip("0").rstrip(".") if "e" in text else text


def plural(number: int, noun: str) -> str:
    """`1 epoch`, `1,200 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
