"""The code of the README, made to run: what is yours there is given, and fewer draws are made."""

import re
from pathlib import Path

__all__ = ["code"]

README = Path(__file__).parent.parent / "README.md"

DATA = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.normal(size=(150, 64)).astype("float32"), rng.integers(0, 10, 150)
xq, yq = x[:4], y[:4]
"""
YOURS = {
    "pyro": """
def train_net(net, x, y):
    pass
""",
    "numpyro": """
def train_net(apply, x, y):
    shapes = {"w1": (64, 8), "b1": (8,), "w2": (8, 10), "b2": (10,)}
    return {name: 0.1 * rng.normal(size=s).astype("float32") for name, s in shapes.items()}
""",
}
FEWER = {
    "draws=1000": "draws=150",
    "draws=62": "draws=20",
    "**rows)": "**rows, draws=40)",
    "num_warmup=500, num_samples=500": "num_warmup=5, num_samples=5",
}


def code(backend: str) -> str:
    """Return the README's example in a backend."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (block,) = (b for b in blocks if f"from ppl_bif.{backend} import" in b)
    for many, few in FEWER.items():
        block = block.replace(many, few)
    return DATA + YOURS[backend] + block
