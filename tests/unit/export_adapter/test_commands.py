import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["components.export_adapter.__main__", "components.export_adapter.verification.verify"])
def test_help_does_not_wait_for_torch(module: str):
    code = f"import sys, {module}; sys.argv[1:] = ['--help']\ntry: {module}.main()\nexcept SystemExit: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "usage: python -m components.export_adapter" in shown
    assert shown.endswith("False\n")
