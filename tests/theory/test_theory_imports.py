# Oracle: the modules of a fresh process.
import pkgutil
import subprocess
import sys

import gengap.theory


def test_theory_loads_no_torch():
    names = [f"gengap.theory.{module.name}" for module in pkgutil.iter_modules(gengap.theory.__path__)]
    assert "gengap.theory.evidence" in names
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
