import os
from pathlib import Path

import pytest

from components.train.loop.results import mapped_of_libraries

SMAPS = """\
55d0-55d9 r-xp 00000000 fe:00 260386    /usr/bin/python3.11
Size:                  8 kB
Rss:                   8 kB
7f00-7f10 r--p 00000000 fe:00 11        /venv/torch/lib/libtorch_cpu.so
Rss:                 400 kB
Anonymous:             0 kB
7f10-7f20 rw-p 00000000 fe:00 11        /venv/torch/lib/libtorch_cpu.so
Rss:                  60 kB
Anonymous:            40 kB
7f20-7f30 r--s 00000000 fe:00 12        /models/tiny.so-called/model.safetensors
Rss:                9000 kB
7f30-7f40 r-xp 00000000 fe:00 13        /lib/x86_64-linux-gnu/libc.so.6
Rss:                   4 kB
7f40-7f50 rw-p 00000000 00:00 0         [heap]
Rss:                 700 kB
Anonymous:           700 kB
VmFlags: rd wr mr mw me ac
"""


def test_pages_of_libraries_are_told_from_weights_and_from_what_was_written() -> None:
    assert mapped_of_libraries(SMAPS) == (400 + 20 + 4) * 1024


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no smaps on this system")
def test_this_process_has_libraries_and_more_than_them() -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0 < mapped_of_libraries(Path("/proc/self/smaps").read_text()) < resident
