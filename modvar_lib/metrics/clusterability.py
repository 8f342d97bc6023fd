"""Blind clusterability: does the graph of |weights| fall into clusters that nobody planted? As in
the literature.

Nodes are pixels and units, edges |W_uv| (each ReLU unit's incoming norm scaled to 1, undone in the
next layer). Spectral clustering into K = 12 (scikit-learn), then the normalised cut of the
clusters, Σ cut / vol; lower is more clustered.

- `cluster_ncut`, 0 to 12; `cluster_ncut_shuffled`, the value at chance: its mean over shuffles
  within each layer.
- `cluster_z` = (n-cut - mean) / sd over the shuffles; `cluster_percentile`: share of them with a
  lower n-cut, 0 to 1.

Clusters follow depth as readily as sides. After training with an L1 penalty a shuffle moves the
many zeros and breaks the graph apart: no fair null. NaN, with the reason, where a layer is not an
affine map of the layer before, or its units are not ReLUs. Source: Filan et al., arXiv:2103.03386.
"""

from itertools import pairwise
from math import inf, nan

import numpy as np
from scipy import sparse
from sklearn.cluster import SpectralClustering
from torch import nn

from modvar_lib.metrics.subject import NOT_AFFINE, PIXELS, Property, Subject, tidy
from modvar_lib.metrics.weights import affine_map

EXTRA = ("trained",)
CLUSTERS, SHUFFLES = 12, 20
NOT_RELU = "a layer before the bottleneck has units that are not ReLUs"
PROPERTIES = {
    "cluster_ncut": Property(0, CLUSTERS, ("permutation", "rescaling")),
    "cluster_ncut_shuffled": Property(0, CLUSTERS, ()),
    "cluster_z": Property(-inf, inf, (), -1),
    "cluster_percentile": Property(0, 1, (), -1),
}


def rows(subject: Subject) -> list[dict]:
    """A row of each measure, of the whole network: layer `all`."""
    chain = list(pairwise([PIXELS, *subject.layers]))
    maps = [one for pair in chain if (one := affine_map(subject.network, *pair))]
    affine = len(maps) == len(chain)
    hidden = [getattr(subject.network, layer) for layer in subject.layers[:-2]]
    relu = all(isinstance(layer, nn.Sequential) and type(layer[-1]) is nn.ReLU for layer in hidden)
    if not (affine and relu):
        return tidy("all", dict.fromkeys(PROPERTIES, nan), NOT_RELU if affine else NOT_AFFINE)
    layers = [weight.double().numpy() for weight, _ in maps]
    random, own, null = (
        np.random.default_rng(subject.seed),
        ncut(layers, CLUSTERS, subject.seed),
        [],
    )
    for i in range(SHUFFLES):
        shuffled = [random.permuted(weight.ravel()).reshape(weight.shape) for weight in layers]
        null.append(ncut(shuffled, CLUSTERS, i))
    null = np.array(null)
    values = own, null.mean(), (own - null.mean()) / null.std(ddof=1), (null < own).mean()
    return tidy("all", dict(zip(PROPERTIES, map(float, values))), "")


def ncut(layers: list[np.ndarray], clusters: int, seed: int) -> float:
    """Normalised cut of the spectral clusters of a network's weights, [units, inputs] per layer."""
    graph = adjacency(layers)
    clustering = SpectralClustering(
        clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=seed
    )
    return cut(graph, clustering.fit_predict(graph))


def adjacency(layers: list[np.ndarray]) -> sparse.csr_array:
    """Of the graph of absolute weights, symmetric, without nodes that have no edge."""
    scaled, norm, pixels = [], 1.0, layers[0].shape[1]
    for i, weight in enumerate(layers):
        weight = np.abs(weight) * norm
        norm = np.linalg.norm(weight, axis=1)
        norm = np.where((norm > 0) & (i < len(layers) - 2), norm, 1)  # hidden layers have ReLUs
        scaled.append(weight / norm[:, None])
    maps = sparse.block_diag(scaled)  # columns: all nodes but the outputs; rows: all but the pixels
    size = pixels + maps.shape[0]
    graph = sparse.coo_array((maps.data, (maps.row + pixels, maps.col)), shape=(size, size)).tocsr()
    graph = graph + graph.T
    linked = np.asarray(graph.sum(0)).ravel() > 0
    return graph[linked][:, linked]


def cut(graph: sparse.csr_array, cluster: np.ndarray) -> float:
    """Σ over clusters of (weight of edges that leave it) / (its volume)."""
    nodes, shape = np.arange(len(cluster)), (len(cluster), cluster.max() + 1)
    member = sparse.csr_array((np.ones(len(cluster)), (nodes, cluster)), shape=shape)
    between = (member.T @ graph @ member).toarray()
    volume = between.sum(0)
    return float(((volume - between.diagonal()) / volume).sum())
