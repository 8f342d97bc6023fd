"""Blind clusterability: does the graph of |weights| fall into clusters that nobody planted? As in the literature.

Nodes are pixels and units, edges |W_uv| (each ReLU unit's incoming norm scaled to 1, undone in the next layer). Spectral
clustering into K = 12 (scikit-learn), then the normalised cut of the clusters, Σ cut / vol, 0 to 12; lower is more clustered.

- `cluster_ncut`; `cluster_ncut_shuffled`, its mean over shuffles of the weights within each layer, the value at chance.
- `cluster_z` = (n-cut - mean) / sd over the shuffles, `cluster_percentile`, the share of shuffles with a lower n-cut, 0 to 1.

Clusters of a network of layers follow depth as readily as sides, so K = 2 cuts it front from back. In networks trained with an
L1 penalty a shuffle moves the many zeros and breaks the graph apart: there the shuffle is no fair null. One eigenproblem a
shuffle: about 4 s an `mlp`, more than all other measures together. NaN, with the reason, where a layer is not an affine map of
the layer before.
Source: Filan et al., Clusterability in Neural Networks, arXiv:2103.03386.
"""

import numpy as np
from scipy import sparse
from sklearn.cluster import SpectralClustering

from modvar_lib.metrics.subject import Subject
from modvar_lib.metrics.weights import NOT_AFFINE, PIXELS, affine_map

CLUSTERS = 12
NAMES = ("cluster_ncut", "cluster_ncut_shuffled", "cluster_z", "cluster_percentile")


def rows(subject: Subject, clusters: int = CLUSTERS, shuffles: int = 20) -> list[dict]:
    """Rows of one network, layer `all`."""
    maps = [
        affine_map(subject.network, *pair)
        for pair in zip([PIXELS, *subject.layers], subject.layers)
    ]
    values, note = (float("nan"),) * 4, NOT_AFFINE
    if all(maps):
        layers, note = [weight.double().numpy() for weight, _ in maps], ""
        own = ncut(layers, clusters, subject.seed)
        random = np.random.default_rng(subject.seed)
        null = np.array(
            [
                ncut([random.permuted(w.ravel()).reshape(w.shape) for w in layers], clusters, i)
                for i in range(shuffles)
            ]
        )
        z = (own - null.mean()) / null.std(ddof=1)
        values = own, null.mean(), z, (null < own).mean()
    return [
        {"layer": "all", "side": "both", "measure": name, "value": float(value), "note": note}
        for name, value in zip(NAMES, values)
    ]


def ncut(layers: list[np.ndarray], clusters: int, seed: int) -> float:
    """Normalised cut of the spectral clusters of a network's weights, [units, inputs] a layer."""
    graph = adjacency(layers)
    found = SpectralClustering(
        clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=seed
    ).fit_predict(graph)
    return cut(graph, found)


def adjacency(layers: list[np.ndarray]) -> sparse.csr_array:
    """Of the graph of absolute weights, symmetric; nodes without an edge, such as pixels that no unit reads, are left out."""
    scaled, norm = [], np.ones(layers[0].shape[1])
    for i, weight in enumerate(layers):
        weight = np.abs(weight) * norm
        norm = np.linalg.norm(weight, axis=1)
        norm = np.where((norm > 0) & (i < len(layers) - 2), norm, 1)  # hidden layers have ReLUs
        scaled.append(weight / norm[:, None])
    sizes = [layers[0].shape[1], *(len(weight) for weight in layers)]
    blocks = [[None] * len(sizes) for _ in sizes]
    for i, size in enumerate(sizes):
        blocks[i][i] = sparse.csr_array((size, size))
    for i, weight in enumerate(scaled):
        blocks[i + 1][i], blocks[i][i + 1] = sparse.csr_array(weight), sparse.csr_array(weight.T)
    graph = sparse.block_array(blocks, format="csr")
    linked = np.asarray(graph.sum(0)).ravel() > 0
    return graph[linked][:, linked]


def cut(graph: sparse.csr_array, cluster: np.ndarray) -> float:
    """Σ over clusters of (weight of edges that leave it) / (its volume)."""
    member = sparse.csr_array(
        (np.ones(len(cluster)), (np.arange(len(cluster)), cluster)),
        shape=(len(cluster), cluster.max() + 1),
    )
    between = (member.T @ graph @ member).toarray()
    volume = between.sum(0)
    return float(((volume - between.diagonal()) / volume).sum())
