import subprocess
import sys

PROGRAM = """
import sys, torch
from components.shared.model.uncompiled import import_uncompiled
usual = torch.compile
import_uncompiled("bitsandbytes", torch)
assert torch.compile is usual
import_uncompiled("there_is_no_such_library", torch)
assert torch.compile is usual
print("bitsandbytes" in sys.modules, "torch._inductor" in sys.modules)
"""


def test_bitsandbytes_is_imported_without_torchs_compiler() -> None:
    """In a process of its own, where nothing else has imported it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]
    assert done.stderr == ""
