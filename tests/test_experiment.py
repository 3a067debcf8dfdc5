"""The one-command experiments: tiny pictures in, a store, a picture and a report out."""

import gzip
import struct

import numpy as np
import pytest

import ppl_bif as bif
from ppl_bif.schema import group
from ppl_bif_models import cifar, experiment

RNG = np.random.default_rng(0)
TRAIN, TEST = 40, 12


def labelled(count, *shape):
    """Bytes that are brighter from class to class."""
    y = np.arange(count) % 10
    noise = RNG.integers(40, size=(count, *shape))
    return (20 * y.reshape(-1, *[1] * len(shape)) + noise).astype(np.uint8), y.astype(np.uint8)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fashion")
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        x, y = labelled(count, 28, 28)
        for kind, values in (("images-idx3", x), ("labels-idx1", y)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            content = gzip.compress(head + values.tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    (folder / cifar.BINARY).mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name, count in zip(names, [TRAIN // 5] * 5 + [TEST], strict=True):
        x, y = labelled(count, 3, 32, 32)
        rows = np.concatenate([y[:, None], x.reshape(count, -1)], axis=1)
        rows.tofile(folder / cifar.BINARY / f"{name}.bin")
    return folder


@pytest.fixture
def briefly(monkeypatch):
    """Sample by a kernel that is given: what warm-up finds, other tests know."""
    sample = bif.sample

    def by_hand(model, **settings):
        model = model.resolve(1e8)
        kernel = model.make_kernel("SGLD", step_size=1e-8, batch_size=8, steps_per_draw=1)
        return sample(kernel, chains=2, warmup=2, **settings)

    monkeypatch.setattr(bif, "sample", by_hand)


def check(store, printed):
    """What was promised is there, and says what it is about."""
    assert "weights" in printed
    assert "strongest proponents" in printed
    assert "What there is now" in printed
    constant = group(bif.open_store(store), "constant_data")
    assert constant["class_name"].sizes["class"] == 10
    assert constant["train_image"].ndim in (3, 4)
    report = store.with_suffix(".html").read_text("utf-8")
    assert constant["class_name"].values[int(constant["query_target"][0])] in report
    assert store.with_suffix(".png").stat().st_size > 1000


@pytest.mark.pyro
@pytest.mark.usefixtures("briefly")
def test_fashion_by_one_command(clothes, tmp_path, capsys):
    options = f"--rows 30 --queries 8 --epochs 2 --draws 20 --folder {clothes} --out {tmp_path}"
    experiment.main(["fashion", *options.split()])
    check(tmp_path / "fashion-cnn-torch.zarr", capsys.readouterr().out)


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize(
    "framework",
    [
        pytest.param("torch", marks=pytest.mark.pyro),
        pytest.param("flax", marks=[pytest.mark.numpyro, pytest.mark.slow]),
        pytest.param("equinox", marks=[pytest.mark.numpyro, pytest.mark.slow]),
    ],
)
def test_cifar_by_one_command(framework, colours, tmp_path, capsys):
    if framework != "torch":
        pytest.importorskip(framework)
    options = (
        f"--framework {framework} --rows 8 --queries 2 --epochs 1 --width 8 --draws 20 "
        f"--folder {colours} --out {tmp_path}"
    )
    experiment.main(["cifar", *options.split()])
    check(tmp_path / f"cifar-resnet9-{framework}.zarr", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--rows 41", "--rows must lie between 1 and the 40 there are; got 41"),
        (
            "--folder nowhere",
            "no cifar-10-batches-bin, cifar-10-batches-py or train.zip in nowhere",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options, said, colours):
    with pytest.raises(SystemExit, match=said):
        experiment.main(["cifar", "--folder", str(colours), *options.split()])


def test_help_names_what_there_is(capsys):
    with pytest.raises(SystemExit, match="0"):
        experiment.main(["--help"])
    printed = capsys.readouterr().out
    assert "fashion" in printed
    assert "ResNet-9 on CIFAR-10" in printed
