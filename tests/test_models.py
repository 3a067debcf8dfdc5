"""The ready image classifiers: shapes, training, and that they can be localized."""

import io
import zipfile

import numpy as np
import pytest

from ppl_bif_models import cifar

ROWS = 16
RNG = np.random.default_rng(0)
Y = np.arange(ROWS) % 2
# Bright pictures and dark ones.
X = (RNG.normal(size=(ROWS, 3, 32, 32)) + 2 * Y[:, None, None, None] - 1).astype(np.float32)


def localized_torch(norm):
    from ppl_bif.pyro import localize
    from ppl_bif_models.resnet9_torch import resnet9, train

    network = train(resnet9(width=8, norm=norm), X, Y, epochs=25)
    return localize(network, likelihood="categorical", localization=1e4)


def localized_flax(norm):
    pytest.importorskip("flax")
    from ppl_bif.numpyro import localize
    from ppl_bif_models.resnet9_flax import ResNet9, train

    network = train(ResNet9(width=8, norm=norm), X, Y, epochs=25)
    return localize(network, likelihood="categorical", localization=1e4)


def localized_equinox(norm):
    pytest.importorskip("equinox")
    from ppl_bif.numpyro import localize
    from ppl_bif_models.resnet9_equinox import ResNet9, train

    network = train(ResNet9(width=8), X, Y, epochs=25)
    return localize(network, likelihood="categorical", localization=1e4)


@pytest.mark.parametrize(
    ("make", "norm"),
    [
        pytest.param(localized_torch, "batch", marks=pytest.mark.pyro),
        pytest.param(localized_torch, "group", marks=pytest.mark.pyro),
        pytest.param(localized_flax, "batch", marks=[pytest.mark.numpyro, pytest.mark.slow]),
        pytest.param(localized_equinox, "group", marks=[pytest.mark.numpyro, pytest.mark.slow]),
    ],
)
def test_resnet9_learns_and_is_localized(make, norm):
    model = make(norm)
    # The same in all three frameworks.
    assert model.num_weights == 103_954
    kernel = model.make_kernel("SGLD", step_size=1e-8, batch_size=8, steps_per_draw=1)
    engine = kernel.bind({"train": (X, Y), "query": (X[:4], Y[:4])}, evaluation_batch_size=8)
    found = engine.log_likelihood(engine.start([0], 0), "train")
    assert found.shape == (1, ROWS)
    assert found.mean() > np.log(0.5)


def test_a_norm_that_is_none_is_refused():
    pytest.importorskip("torch")
    from ppl_bif_models.resnet9_torch import resnet9

    with pytest.raises(ValueError, match='"batch" or "group"'):
        resnet9(norm="layer")


def pictures(count):
    return RNG.integers(256, size=(count, 3, 32, 32)).astype(np.uint8)


def test_cifar_is_read_from_its_binary_files(tmp_path):
    folder = tmp_path / cifar.BINARY
    folder.mkdir()
    x, y = pictures(12), np.arange(12) % 10
    rows = np.concatenate([y[:, None].astype(np.uint8), x.reshape(12, -1)], axis=1)
    for i in range(5):
        rows[2 * i : 2 * i + 2].tofile(folder / f"data_batch_{i + 1}.bin")
    rows[10:].tofile(folder / "test_batch.bin")
    found = cifar.load(tmp_path)
    np.testing.assert_array_equal(found.train_x, x[:10])
    np.testing.assert_array_equal(found.test_y, y[10:])
    (folder / "test_batch.bin").write_bytes(b"12345")
    with pytest.raises(ValueError, match="cut short: rows take 3073 bytes"):
        cifar.load(tmp_path)


def test_cifar_is_read_from_archives_of_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    x = pictures(4)
    for name, rows in (("train", x[:3]), ("test", x[3:])):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for i, row in enumerate(rows):
                content = io.BytesIO()
                image.fromarray(row.transpose(1, 2, 0)).save(content, "png")
                kind = cifar.CLASSES[2 * i]
                archive.writestr(f"{name}/{kind}/{i:04}.png", content.getvalue())
    found = cifar.load(tmp_path)
    np.testing.assert_array_equal(found.train_x, x[:3])
    assert found.train_y.tolist() == [0, 2, 4]
    assert np.abs(cifar.scaled(found.train_x).mean()) < 1


def test_where_cifar_may_be_had_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cs\.toronto\.edu.*folder="):
        cifar.load(tmp_path)
