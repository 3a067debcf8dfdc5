"""Runs in S3, against a server on this machine; skipped where s3fs or moto's server is not."""

import json

import pytest

import ppl_bif as bif
from ppl_bif import locking, sampling
from ppl_bif.places import place
from tests.test_resume import KilledError
from tests.test_store import FakeEngine, assert_same, fake_run

pytestmark = [
    # What botocore and aiohttp do is their affair.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def bucket(monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("flask")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    # File systems are kept by their arguments, which do not say where the server is.
    s3fs.S3FileSystem.clear_instance_cache()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # Addresses and credentials are left to fsspec and botocore, which read the environment.
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    place("s3://runs/").files.makedirs("runs", exist_ok=True)
    yield "s3://runs"
    server.stop()


def test_a_run_is_killed_gone_on_with_and_read(bucket, monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK_DRAWS", 2)
    path, draws, made = f"{bucket}/a.zarr", FakeEngine.draws, []

    def fatal(self, *more, **settings):
        made.append(1)
        if len(made) == 4:
            raise KilledError
        return draws(self, *more, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "draws", fatal)
        with pytest.raises(KilledError):
            fake_run(path)
    so_far = bif.open_store(path)
    assert so_far.attrs["completed"] is False
    assert 0 < so_far.attrs["draws"] < 6
    assert_same(fake_run(path), fake_run())
    assert_same(fake_run(path, draws=9), fake_run(draws=9))
    with pytest.raises(bif.StoreError, match="holds another run"):
        fake_run(path, seed=8)


def test_a_second_writer_is_refused(bucket):
    where = place(f"{bucket}/b.zarr")
    where.write(locking.LEASE, json.dumps({"process": 1, "host": "h", "until": 9e99}).encode())
    with pytest.raises(bif.StoreError, match="written to by process 1 on 'h'"):
        fake_run(f"{bucket}/b.zarr")
