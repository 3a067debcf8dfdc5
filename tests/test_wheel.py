"""What a release holds: all of the package, its data and nothing else, under one version."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ppl_bif

pytest.importorskip("build")
pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).parent.parent
PACKAGES = {"ppl_bif": "ppl_bif", "models": "ppl_bif_models"}
# What Python leaves behind as it imports.
CACHES = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a wheel from a copy of what it is made of: setuptools leaves files where it builds."""
    copy, out = (tmp_path_factory.mktemp(name) for name in ("sources", "wheel"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=CACHES)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would be ignored" not in done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_every_file_of_the_packages_is_there_and_no_other(wheel):
    there = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == there
    assert "ppl_bif/py.typed" in found
    assert "ppl_bif/report/template.html" in found


def test_one_version(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    version = re.search(r"^Version: (.*)$", wheel.read(metadata).decode(), re.MULTILINE)[1]
    assert metadata.startswith(f"ppl_bif-{version}.dist-info/")
    assert ppl_bif.__version__ == version
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is None or cited[1].strip('"') == version


def test_the_command_and_the_licence_come_along(wheel):
    texts = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "ppl-bif = ppl_bif.cli:app" in wheel.read(texts["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in texts
