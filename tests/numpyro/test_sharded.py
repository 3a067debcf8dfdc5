"""Weights over several devices, against the same run on one; in a process that has four."""

import json
import os
import subprocess
import sys

import pytest

RUN = """
import json, sys, warnings
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import ppl_bif as bif
from ppl_bif.numpyro import SGLD, UnderdampedLangevin, localize

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(60, 16)).astype(np.float32), rng.integers(4, size=60)
params = {
    "a": rng.normal(size=(16, 32)).astype(np.float32) / 4,
    "b": np.zeros(32, np.float32),
    "c": rng.normal(size=(32, 4)).astype(np.float32) / 6,
}
SPECS = {"a": P(None, "model"), "b": P("model"), "c": P("model")}

def apply(p, x):
    return jnp.tanh(x @ p["a"] + p["b"]) @ p["c"]

def localized(devices):
    here = params
    if devices > 1:
        mesh = jax.make_mesh((devices,), ("model",), devices=jax.devices()[:devices])
        here = jax.device_put(params, {n: NamedSharding(mesh, s) for n, s in SPECS.items()})
    return localize(apply, here, likelihood="categorical", localization=10.0)

def drawn(kernel):
    engine = kernel.bind({"train": (x, y), "query": (x[:5], y[:5])}, evaluation_batch_size=None)
    state, draws = engine.draws(engine.start([0, 1], 0), 3, 8, most=8, names=())
    return draws.likelihood["train"], jax.tree.leaves((state.z, state.moving))

def in_parts(leaves, devices):
    return all(
        leaf.addressable_shards[0].data.size * devices == leaf.size
        and len(leaf.sharding.device_set) == devices
        for leaf in leaves
    )

found = {}
for kind, step, meshes in ((UnderdampedLangevin, 0.02, [4]), (SGLD, 1e-3, [2, 4])):
    name = kind.__name__
    settings = {"step_size": step, "steps_per_draw": 3, "batch_size": 8, "gradient": "minibatch"}
    made = {devices: kind(localized(devices), **settings) for devices in (1, *meshes)}
    one, _ = drawn(made[1])
    found[f"{name} spread"] = float(one.std(axis=1).mean())
    for devices in meshes:
        values, leaves = drawn(made[devices])
        found[f"{name} {devices} apart"] = float(abs(values - one).max())
        found[f"{name} {devices} in parts"] = in_parts(leaves, devices)

def run(draws, **settings):
    return bif.sample(
        made[4], train=(x, y), query=(x[:5], y[:5]), chains=2, draws=draws, warmup=2,
        progress=False, **settings,
    )["log_likelihood"]["train_obs"].values

store = sys.argv[1]
run(7, store=store)
found["gone on"] = bool((run(12, store=store) == run(12)).all())
print(json.dumps(found))
"""


CASES = [("SGLD", 2), ("SGLD", 4), ("UnderdampedLangevin", 4)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    store = str(tmp_path_factory.mktemp("sharded") / "run.zarr")
    done = subprocess.run(
        [sys.executable, "-c", RUN, store],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("kernel", "devices"), CASES)
def test_traces_are_those_of_one_device(found, kernel, devices):
    assert found[f"{kernel} {devices} apart"] < 1e-5
    assert found[f"{kernel} spread"] > 0.05


@pytest.mark.parametrize(("kernel", "devices"), CASES)
def test_every_device_holds_its_part_alone(found, kernel, devices):
    assert found[f"{kernel} {devices} in parts"]


def test_a_stored_run_goes_on_to_the_bit(found):
    assert found["gone on"]
