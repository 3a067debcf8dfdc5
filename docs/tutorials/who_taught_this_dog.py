# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Who taught the network this dog?
#
# A network that was trained on ImageNet learns ten new classes from 600 small pictures: its
# features stay as they are, and only a linear layer on top is trained. Which of the 600 made it
# call this picture a dog, and that one something else? Everything below ran when this page was
# built, on one thread.

# %%
import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

import ppl_bif as bif
from ppl_bif.evaluation import detection, flip_labels, planted, retrieval
from ppl_bif.pyro import localize
from ppl_bif_models import cifar, imagenet
from ppl_bif_models.transfer import fit_head, projection

torch.set_num_threads(1)
data = cifar.load("data/cifar_small")
print(
    f"{len(data.train_y)} training pictures, {len(data.test_y)} to explain: {data.test_x.shape[1:]}"
)

# %% [markdown]
# ## Cut the network in two
#
# EfficientNet-lite0, with the weights it was published with. `cut` takes its last layer off. What
# is before it, the backbone, is frozen: its features of each picture are computed once. The
# pictures, 32 pixels wide, are enlarged to 128.
#
# To see later whether a score finds what is surely there, ten test pictures, one of each class,
# are mirrored and put among the training pictures.

# %%
copied = np.arange(0, 200, 20)
x = np.concatenate([data.train_x, data.test_x[copied, ..., ::-1]])
y = np.concatenate([data.train_y, data.test_y[copied]])
xq, yq = data.test_x, data.test_y

classifier = imagenet.load()
backbone, imagenet_head = imagenet.cut(classifier.network)
wide, wide_q = (imagenet.features(backbone, classifier, part, size=128) for part in (x, xq))
wide.shape

# %% [markdown]
# 1,280 features are more than 610 pictures can say anything about. A head on all of them has
# 12,810 weights, most draws of them differ in directions that no picture minds, and hardly any
# score stands out from that noise. So the features are projected onto the 32 directions in which
# they differ most; the head on these is about as good, and has 330 weights.

# %%
project = projection(wide, 32)
features, features_q = project(wide), project(wide_q)
labels, labels_q = torch.as_tensor(y), torch.as_tensor(yq)
head = fit_head(features, labels, classes=10)


def share_right(head, features, labels):
    return float((head(features).argmax(dim=1) == labels).float().mean())


with torch.no_grad():
    guesses = head(features_q).argmax(dim=1).numpy()
all_of = fit_head(wide - wide.mean(dim=0), labels, classes=10, decay=0.1)
print(
    f"right: {share_right(head, features_q, labels_q):.0%} of the test pictures, with all "
    f"features {share_right(all_of, wide_q - wide.mean(dim=0), labels_q):.0%}"
)

# %% [markdown]
# ## Sample the head
#
# From here on it is a run like any other. The pictures, the names of the classes and what the head
# guessed go along, for the captions.

# %%
pictures = {
    "train_image": (("train", "row", "column", "colour"), x.transpose(0, 2, 3, 1)),
    "query_image": (("query", "row", "column", "colour"), xq.transpose(0, 2, 3, 1)),
    "query_prediction": ("query", guesses),
    "class_name": ("class", np.array(cifar.CLASSES)),
}
idata = bif.sample(
    localize(head, likelihood="categorical"),
    train=(features, labels),
    query=(features_q, labels_q),
    chains=4,
    draws=1200,
    seed=0,
    constant_data=pictures,
)
check = bif.diagnose(idata)

# %% [markdown]
# ## Dogs that are taken for dogs
#
# Each row is a test picture; to its right what would make the network surer of its label if it
# weighed more, and what would make it less sure. The number is the change of the log-likelihood for
# one more copy of the training picture, to first order, with its Monte Carlo error.

# %%
scores = bif.influence(idata)
best = bif.top(scores, k=5)
dogs = yq == cifar.CLASSES.index("dog")
seen = guesses == yq
bif.plot_top(best, query=np.flatnonzero(dogs & seen)[:6], idata=idata)

# %% [markdown]
# White dogs are taught by white dogs, spaniels by spaniels, a sitting one by a sitting one: the
# classes say none of this. What stands on the right are mostly cats, and dogs of another kind: a
# picture that pulls the boundary to itself pulls it away from others.
#
# ## Dogs that are taken for something else
#
# The strongest pictures on the right here are the ones to look at: they taught the mistake.

# %%
bif.plot_top(best, query=np.flatnonzero(dogs & ~seen)[:4], idata=idata)

# %% [markdown]
# ## Is it more than similarity?
#
# The features of two pictures can be compared without any sampling. Which of the two brings back
# pictures of the query's class, and which finds the mirrored copy?

# %%
cosine = (normalize(features_q, dim=1) @ normalize(features, dim=1).T).numpy()
copies = 600 + np.arange(10)
found_by = {"influence": scores["influence"].values, "cosine of the features": cosine}
for name, found in found_by.items():
    same = retrieval(found, y, yq, k=5)
    again = planted(found[copied], copies)
    print(
        f"{name}: same class {float(same['mean']):.2f} ({float(same['low']):.2f} ... "
        f"{float(same['high']):.2f}), ranks of the ten copies {again['rank'].values}"
    )

# %% [markdown]
# They answer different questions. To find a copy, similarity is the right tool, and influence is
# not: a picture that the network is sure of anyway owes little to any single one, its copy
# included. What it owes, it owes to its class: similarity in the directions that vary most is
# about brightness, background and posture as much.
#
# ## Are the influences of a terrier terriers?
#
# The head was told of dogs, not of breeds, but the network before it was told of 118. Its own last
# layer names the likeliest for each dog; how often that is right on pictures of 32 pixels nobody
# knows. Take all dogs that it calls a terrier, explained ones and trained ones: of the five dogs
# that speak most for each, itself left out, how many are called terriers as well?

# %%
breeds = slice(151, 269)  # the dogs among ImageNet's classes
is_terrier = np.array(["terrier" in name.lower() for name in imagenet.class_names()[breeds]])


def called_terrier(wide):
    with torch.no_grad():
        return is_terrier[imagenet_head(wide)[:, breeds].argmax(dim=1)]


taught, asked = np.flatnonzero(y == cifar.CLASSES.index("dog")), np.flatnonzero(dogs)
terrier, terrier_q = called_terrier(wide[taught]), called_terrier(wide_q[asked])
of_trained = bif.influence(idata, query="train_obs")
every = np.concatenate([scores["influence"].values[asked], of_trained["influence"].values[taught]])
unit = normalize(torch.cat([wide_q[asked], wide[taught]]), dim=1)
found_by = {
    "influence": every[:, taught],
    "cosine of all 1,280 features": (unit @ unit[len(asked) :].T).numpy(),
}
queries = np.concatenate([terrier_q, terrier])
for name, found in found_by.items():
    np.fill_diagonal(found[len(asked) :], found.min())
    same = retrieval(found[queries], terrier, queries[queries], k=5)
    print(
        f"{name}: of {queries.sum()} terriers' strongest dogs {float(same['mean']):.2f} are "
        f"({float(same['low']):.2f} ... {float(same['high']):.2f}), of all dogs "
        f"{float(same['chance']):.2f}"
    )

# %% [markdown]
# Not here: no more often than dogs in general, as far as so few can tell. Nothing asked the head to
# tell breeds apart, and the 32 directions that it sees are those in which ten classes differ. Nor
# is there much to be seen: all features together, compared directly, hardly find a terrier's kin
# in such small pictures, and the names themselves are guesses. Here is one of these terriers.

# %%
bif.plot_top(best, query=asked[terrier_q][1:2], idata=idata)

# %% [markdown]
# ## Labels that are wrong
#
# One label in ten is exchanged for one that the network finds plausible, and the head is trained
# again. A wrong label is explained by nothing but itself, so its influence on itself is large.

# %%
with torch.no_grad():
    doubt = head(features).softmax(dim=1).numpy()
confusion = np.stack([doubt[y == label].mean(axis=0) for label in range(10)])
flipped, wrong = flip_labels(y, 0.1, confusion=confusion, seed=0)
mistaught = fit_head(features, torch.as_tensor(flipped), classes=10)
suspected = bif.sample(
    localize(mistaught, likelihood="categorical"),
    train=(features, torch.as_tensor(flipped)),
    query=(features_q, labels_q),
    chains=4,
    draws=1200,
    seed=0,
)
among = bif.influence(suspected, query="train_obs")
itself = np.diagonal(among["influence"])
with torch.no_grad():
    losses = cross_entropy(mistaught(features), torch.as_tensor(flipped), reduction="none").numpy()

order = np.argsort(-itself)
for name, suspicion in {"influence on itself": itself, "loss": losses}.items():
    found = detection(suspicion, wrong)
    print(
        f"{name}: AUROC {float(found['auroc']):.3f} ({float(found['auroc_low']):.3f} ... "
        f"{float(found['auroc_high']):.3f}), wrong among the first ten: "
        f"{wrong[np.argsort(-suspicion)[:10]].sum()}"
    )

# %% [markdown]
# The loss finds them as well: after one short look at a small model nothing is gained by sampling,
# if all one wants is a list. What the loss does not say is what else a wrong label did. Here are
# the most suspected pictures, and the pictures that speak for and against the labels they were
# trained with: each speaks for itself, and hardly any other does.

# %%
captions = [cifar.CLASSES[label] for label in flipped]
for row in order[:3]:
    print(f"picture {row}: taught as {captions[row]}, is a {cifar.CLASSES[y[row]]}")
images = x.transpose(0, 2, 3, 1)
bif.plot_top(among, query=order[:3], train_images=images, query_images=images)

# %% [markdown]
# ## With your own pictures
#
# `imagenet.load("resnet18")` and the other names of torchvision and timm work as well, with
# `imagenet.cut` to take any network apart. `python -m ppl_bif_models.experiment cifar` trains the
# whole of a ResNet-9, and everything after `localize` stays as it is here: [Ready
# networks](../reference/networks.md) has them all. Whether such scores predict what retraining
# would do is measured in [Is my attribution any good?](attribution_quality.md) and [Cost against
# quality](../quality.md).
