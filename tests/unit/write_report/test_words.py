import pytest

from components.write_report.words import duration, parameters, share, size


@pytest.mark.parametrize(
    ("seconds", "reported"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (500.3, "8 min 20 s"),
        (3600, "1 h 0 min"),
        (7499, "2 h 4 min"),
    ],
)
def test_duration(seconds: float, reported: str):
    assert duration(seconds) == reported


@pytest.mark.parametrize(
    ("num_bytes", "reported"),
    [(443, "0.4 kB"), (999_999, "1,000.0 kB"), (9_800_000, "9.8 MB"), (94_300_000_000, "94.3 GB")],
)
def test_size(num_bytes: int, reported: str):
    assert size(num_bytes) == reported


@pytest.mark.parametrize(
    ("part", "reported"),
    [(1.8, "1.8 %"), (0.004, "0.004 %"), (99.97, "100 %"), (100, "100 %"), (36.3, "36 %")],
)
def test_share(part: float, reported: str):
    assert share(part, 100) == reported


@pytest.mark.parametrize(
    ("number", "reported"), [(8192, "8,192"), (134_515_008, "134.5 M"), (6_738_415_616, "6.7 B")]
)
def test_parameters(number: int, reported: str):
    assert parameters(number) == reported
