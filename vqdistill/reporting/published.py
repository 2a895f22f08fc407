"""Published results on MNIST, beside which ours are drawn.

Test bits of grey levels under circuits with a categorical distribution a pixel, from
https://github.com/april-tools/uni-circ-le (results/grid_mnist.csv and benchmarking_mnist.csv).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One result: circuit, number of parameters, and test bits per dimension."""

    circuit: str
    n_parameters: float
    bits: float


PUBLISHED = {
    "mnist": (
        Published("quad-tree, CP, K = 16", 3.5e6, 1.2832),
        Published("quad-tree, CP, K = 64", 17e6, 1.2169),
        Published("quad-tree, CP, K = 128", 43e6, 1.1961),
        Published("quad-tree, CP, K = 512", 380e6, 1.1753),
        Published("quad-graph, CP, K = 16", 4.0e6, 1.2489),
        Published("quad-graph, CP, K = 256", 256e6, 1.1767),
        Published("quad-graph, Tucker, K = 32", 57e6, 1.2254),
        Published("Poon-Domingos, pieces of 4x4 pixels", 832e6, 1.3723),
    )
}
