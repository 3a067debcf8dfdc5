"""The README's code runs as it stands there."""

import pytest

from tests.backends import BACKENDS, marked
from tests.readme import code

pytest.importorskip("arviz_plots")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", marked(BACKENDS))
def test_it_runs(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(code(backend), known)
    assert known["best"]["influence"].shape == (4, 2, 10)
