"""Stores that someone made to do harm: refused before anything of them is read or run."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

import ppl_bif as bif
from ppl_bif.checkpoint import Checkpoints, latest_course
from ppl_bif.places import place
from tests.test_store import assert_same, fake_run

pytestmark = pytest.mark.filterwarnings("ignore:these draws will not be scored")

TRAIN = "log_likelihood/train_obs"


@pytest.fixture
def path(tmp_path):
    fake_run(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def change(path, name, changed):
    """Change the metadata of a node."""
    file = path / name / "zarr.json"
    metadata = json.loads(file.read_text())
    changed(metadata)
    file.write_text(json.dumps(metadata))


def refused(path, why):
    with pytest.raises(bif.StoreError, match=why):
        bif.open_store(path)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "pickle", "python.function"])
@pytest.mark.parametrize("array", [TRAIN, "constant_data/train_target", "log_likelihood/train"])
def test_a_codec_that_runs_what_it_reads(path, codec, array):
    change(path, array, lambda m: m["codecs"].append({"name": codec, "configuration": {}}))
    refused(path, f"{array} is packed by '{codec}'")


def test_pickled_objects_in_version_2_of_zarr(path):
    folder = path / "constant_data" / "train_target"
    (folder / "zarr.json").unlink()
    (folder / "0").write_bytes(pickle.dumps(Bomb()))
    metadata = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None,
        "fill_value": None, "order": "C", "filters": [{"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(metadata))
    assert "train_target" not in bif.open_store(path)["constant_data"]
    (path / "zarr.json").unlink()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"fingerprint": "a", "completed": true, "draws": 6}')
    refused(path, "is not a Zarr store of a run")


def test_pickled_objects_in_a_checkpoint(path):
    course = latest_course(place(path))
    leg = course.legs["chains-0"][0]
    (path / "checkpoint" / "states" / leg.file).write_bytes(pickle.dumps(Bomb()))
    for file in (path / "checkpoint").glob("course-*.json"):
        file.write_bytes(pickle.dumps(Bomb()))
    assert latest_course(place(path)) is None
    with pytest.raises(bif.StoreError, match="no checkpoint to go on from"):
        fake_run(path, draws=9)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (TRAIN, [10**9, 10**9, 10]),
        ("constant_data/train_target", [10**15]),
        ("log_likelihood/train", [2**62, 2**62]),
        (TRAIN, [2, -6, 10]),
        (TRAIN, [1] * 60),
    ],
)
def test_absurd_shapes(path, name, shape):
    change(path, name, lambda m: m.update(shape=shape))
    refused(path, f"{name} has shape")


def test_absurd_chunks(path):
    def enlarge(metadata):
        metadata["codecs"][0]["configuration"]["chunk_shape"] = [1, 10**6, 10**6]

    change(path, TRAIN, enlarge)
    refused(path, "is in chunks of 1x1000000x1000000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("draws", 10**15),
        ("draws", "6"),
        ("draws", -1),
        ("draws", None),
        ("completed", "yes"),
        ("chains", 10**12),
        ("notes", [{"__reduce__": 1}]),
        ("refused", 3),
        ("fingerprint", ["a"]),
    ],
)
def test_absurd_attributes(path, name, value):
    change(path, "", lambda m: m["attributes"].update({name: value}))
    refused(path, "its attribute|does not say how many draws")


def test_more_draws_than_there_are(path):
    change(path, "", lambda m: m["attributes"].update(draws=60))
    refused(path, "holds less than the store says")


@pytest.mark.parametrize("name", [TRAIN, "constant_data"])
def test_links_that_lead_out(path, tmp_path, name):
    (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(tmp_path / "outside")
    refused(path, f"{name} is a link that leads out of it")


def test_metadata_that_are_none(path):
    (path / TRAIN / "zarr.json").write_text("[" * 1000)
    refused(path, "are no JSON|not a Zarr store")


@pytest.mark.parametrize("file", ["../../../outside.safetensors", "/etc/passwd", "..", "a/b"])
def test_checkpoints_that_climb_out(path, tmp_path, file):
    (tmp_path / "outside.safetensors").write_bytes(save({"chains": np.arange(2)}))
    where = place(path)
    checkpoints = Checkpoints(where)
    legs = [leg._replace(file=file) for leg in checkpoints.course.legs["chains-0"]]
    checkpoints.write(legs={**checkpoints.course.legs, "chains-0": legs})
    checkpoints.write()
    assert latest_course(where) is None
    assert (tmp_path / "outside.safetensors").exists()


def test_checkpoints_of_absurd_size(path):
    checkpoints = Checkpoints(place(path))
    legs = [leg._replace(size=10**15) for leg in checkpoints.course.legs["chains-0"]]
    checkpoints.write(legs={**checkpoints.course.legs, "chains-0": legs})
    with pytest.raises(bif.StoreError, match="every checkpoint of chains-0"):
        fake_run(path, draws=9)


def test_a_state_of_other_chains(path):
    checkpoints = Checkpoints(place(path))
    checkpoints.put("chains-0", 6, [False, False], {"nothing": np.zeros(3)})
    with pytest.raises(bif.StoreError, match="is not of this run"):
        fake_run(path, draws=9)


def test_all_is_well_without_harm(path):
    assert_same(bif.open_store(path), fake_run())
