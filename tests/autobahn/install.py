"""Puts the Autobahn suite, pinned, into .venv-autobahn with whatever Python 2.7 is on this machine.

Always true: nothing outside that directory is changed, and its link to the interpreter is made last, so
that a suite which is half installed is none.  A machine without Python 2.7 is told so and is no error:
the tests then skip, and say why.
Does not belong here: running the suite (suite).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".venv-autobahn"
REQUIREMENTS = HERE / "requirements.txt"
FITS = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"
STARTS = "import site, sys; site.addsitedir({!r}); import autobahntestsuite.wstest"


def python2() -> str | None:
    """A Python 2.7 with pip: the one that PYTHON2 names, else the path's, else pyenv's."""
    if named := os.environ.get("PYTHON2"):
        candidates = [named]
    else:
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        candidates = ["python2.7", "python2", *sorted(map(str, pyenv.glob("versions/2.7.*/bin/python2.7")))]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-c", FITS], capture_output=True, check=False).returncode == 0:
            return path
    return None


def install(python: str) -> None:
    """Install what requirements.txt pins, and see that it starts.  Raises CalledProcessError when it cannot be."""
    site = HOME / "site"
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    pip = [python, "-W", "ignore", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*pip, "--no-deps", "--require-hashes", "--target", str(site), "-r", str(REQUIREMENTS)], check=True)
    subprocess.run([python, "-c", STARTS.format(str(site))], check=True)
    shutil.copy(REQUIREMENTS, HOME / "installed.txt")
    (HOME / "python2.7").symlink_to(shutil.which(python) or python)


def main() -> int:
    installed = HOME / "installed.txt"
    if (HOME / "python2.7").exists() and installed.exists() and installed.read_text() == REQUIREMENTS.read_text():
        return 0
    python = python2()
    if python is None:
        print("No Python 2.7 with pip is here (PYTHON2=/path/to/python2.7): the Autobahn tests will skip")
        return 0
    try:
        install(python)
    except subprocess.CalledProcessError as failure:
        print(f"The Autobahn suite could not be installed: exit status {failure.returncode}")
        return 1
    print("The Autobahn suite is installed in .venv-autobahn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
