"""Weights over two processes, against the same run in one; by ``torchrun``, as users would."""

import json
import os
import subprocess
import sys

import pytest

RUN = """
import json, sys, warnings
import numpy as np, torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
import ppl_bif as bif
from ppl_bif.pyro import SGLD, UnderdampedLangevin, localize

warnings.simplefilter("ignore")
dist.init_process_group("gloo")
mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
rng = np.random.default_rng(0)
x, y = rng.normal(size=(61, 5)).astype(np.float32), rng.integers(3, size=61)
data = {"train": (x, y), "query": (x[:5], y[:5])}
short = {"chains": 2, "draws": 12, "warmup": 2, "progress": False, "chain_method": "sequential"}

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Dropout(), nn.Tanh(), nn.Linear(7, 3))

def sharded():
    made = network()
    for layer in (made[0], made[3], made):
        fully_shard(layer, mesh=mesh)
    return made

def localized(made, **settings):
    return localize(made, likelihood="categorical", **{"localization": 10.0, **settings})

def run(made, sites=None, **settings):
    known = {"step_size": 1e-3, "batch_size": 9, "steps_per_draw": 3}
    return bif.sample(SGLD(localized(made, sites=sites), **known | settings), **data, **short)

def refused(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)

found = {"apart": {}}
for settings in ({}, {"gradient": "control_variates"}, {"gradient": "partition"}, {"sites": "3.*"}):
    made = sharded()
    one, parts = run(network(), **settings), run(made, **settings)
    pairs = [
        (one[group][name].values * 1.0, parts[group][name].values * 1.0)
        for group in ("log_likelihood", "sample_stats") for name in one[group]
    ]
    apart = [np.nanmax(abs(a - b)) / max(1.0, np.nanmax(abs(a))) for a, b in pairs]
    found["apart"][str(settings)] = float(max(apart))
    found["spread"] = float(one["log_likelihood"]["train_obs"].std("draw").mean())
    weights = zip(made.parameters(), network().parameters())
    found["moved"] = max(float((w.full_tensor() - old).abs().max()) for w, old in weights)

model = localized(sharded())
known = SGLD(model, step_size=1e-3, batch_size=9, steps_per_draw=3)
together = {**short, "chain_method": "vectorized"}
partly = nn.Sequential(fully_shard(nn.Linear(5, 3), mesh=mesh), nn.Linear(3, 3))
found["held"] = sum(w.numel() for w in model.mode.values()) / model.num_weights
found["refused"] = {
    "vectorized": refused(lambda: bif.sample(known, **data, **together)),
    "store": refused(lambda: bif.sample(known, **data, **short, store="run.zarr")),
    "kernel": refused(lambda: bif.sample(UnderdampedLangevin(model), **data, **short)),
    "step": refused(lambda: bif.sample(SGLD(model), **data, **short)),
    "model": refused(lambda: model(torch.tensor(x), torch.tensor(y))),
    "device": refused(lambda: localized(sharded(), device="cpu")),
    "dtype": refused(lambda: localized(fully_shard(nn.Linear(5, 3).bfloat16(), mesh=mesh))),
    "plain": refused(lambda: localized(partly)),
}
if dist.get_rank() == 0:
    print(json.dumps(found), flush=True)
dist.destroy_process_group()
"""

SETTINGS = [
    {},
    {"gradient": "control_variates"},
    {"gradient": "partition"},
    {"sites": "3.*"},
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    script = tmp_path_factory.mktemp("sharded") / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(script)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_traces_and_statistics_are_those_of_one_process(found, settings):
    assert found["apart"][str(settings)] < 1e-5
    assert found["spread"] > 0.05


def test_each_process_holds_its_part_and_the_module_is_left_at_its_weights(found):
    assert 0.5 <= found["held"] < 0.7
    assert found["moved"] == 0


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("vectorized", "leave chain_method out"),
        ("store", "leave store and max_time out"),
        ("kernel", "sampled by SGLD without preconditioner"),
        ("step", "localization and step_size as numbers"),
        ("model", "would have to be held whole"),
        ("device", "leave device out"),
        ("dtype", "load it in float32"),
        ("plain", "a plain tensor"),
    ],
)
def test_what_parts_cannot_do_is_refused(found, what, told):
    assert told in found["refused"][what]
