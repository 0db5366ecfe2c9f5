# Oracle: a fresh interpreter in which the packages are hidden, and the list of modules that it has loaded.
import json
import subprocess
import sys

import pytest

from gengap.adapters.required import required
from gengap.core.errors import BadInput

PACKAGES = ("lightning", "transformers", "accelerate")
SCRIPT = """
import importlib, json, sys
import gengap
loaded = [name for name in {packages} if name in sys.modules]
said = []
for name in {packages}:
    sys.modules[name] = None
    try:
        importlib.import_module("gengap.adapters." + name)
    except gengap.BadInput as error:
        said.append(str(error))
print(json.dumps([loaded, said]))
"""


def test_a_missing_package_is_named_with_what_installs_it():
    script = SCRIPT.format(packages=PACKAGES)
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    loaded, said = json.loads(made.stdout)
    assert not loaded
    assert len(said) == 3
    for package, sentence in zip(PACKAGES, said, strict=True):
        assert sentence.startswith(f"{package} cannot be imported")
        assert sentence.endswith(f'install it with: pip install "gengap[{package}]"')


def test_a_module_of_a_package_is_found():
    assert required("json.decoder").JSONDecodeError
    with pytest.raises(BadInput, match=r'install it with: pip install "gengap\[nonesuch\]"'):
        required("nonesuch.part")
