"""What pyproject.toml cannot: `pip install .` brings requirements.txt, whose Jittor is a folder."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
REQUIREMENTS = re.sub(r"\s*#.*", "", (HERE / "requirements.txt").read_text(encoding="utf-8"))

setup(install_requires=[
    re.sub(r"^\./(.*)", lambda path: f"jittor @ {(HERE / path[1]).as_uri()}", line)
    for line in REQUIREMENTS.splitlines() if line])
