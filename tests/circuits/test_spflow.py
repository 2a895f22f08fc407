"""Our circuits against SPFlow, a general circuit library that we did not write.

At least 16 components and 16 pixels, and a random mask for each image. The exported circuit is
asked its own queries; what it answers is compared with what ours do.
"""

import pytest
import torch
from helpers import einet_of, mixture_of, refusal, seeded, terms
from scipy.stats import kstest
from spflow.modules.leaves import Normal
from spflow.modules.ops.cat import Cat
from spflow.modules.products import Product
from spflow.modules.sums import Sum

from vqdistill.baselines import gmm
from vqdistill.circuits.base import Circuit
from vqdistill.circuits.mixture import DecodedComponents, StreamedMixture
from vqdistill.circuits.spflow import from_spflow, to_spflow

N, SHAPE, D, B = 20, (4, 4), 16, 40
NATS = 1e-9
SMALLEST_P_VALUE = 1e-3


def mixture(smallest=1e-3):
    return mixture_of(N, D, smallest)


def einet(size=4, step=1, shape=SHAPE):
    return einet_of(shape, size, step, smallest=1e-3)


CIRCUITS = {
    "mixture": mixture,
    "wide mixture": lambda: mixture(0.2),
    "einet": einet,
    "einet of large leaves": lambda: einet(3, 2, (4, 6)),
}


@pytest.fixture(params=CIRCUITS)
def circuit(request) -> Circuit:
    return CIRCUITS[request.param]()


def batch(circuit):
    """Images and a mask for each: random ones, all hidden, and all observed."""
    x = torch.rand(B, circuit.n_variables, generator=seeded(1), dtype=torch.float64)
    observed = torch.rand(x.shape, generator=seeded(2)) < torch.linspace(0, 1, B)[:, None]
    observed[0], observed[-1] = False, True
    return x, observed


def spflow_log_prob(module, x, observed=None):
    """log p(x_o) by SPFlow, which integrates over what is NaN."""
    x = x if observed is None else torch.where(observed, x, torch.nan)
    with torch.no_grad():
        return module.log_likelihood(x).flatten()


def test_density_and_marginals(circuit):
    module, (x, observed) = to_spflow(circuit), batch(circuit)
    torch.testing.assert_close(circuit.log_prob(x), spflow_log_prob(module, x), rtol=0, atol=NATS)
    expected = spflow_log_prob(module, x, observed)
    torch.testing.assert_close(circuit.log_prob(x, observed), expected, rtol=0, atol=NATS)
    expected = spflow_log_prob(module, x) - expected
    found = circuit.conditional_log_prob(x, observed)
    torch.testing.assert_close(found, expected, rtol=0, atol=NATS)


def test_conditional_means_are_those_of_its_conditional_samples():
    """Within 4.5 standard errors at every hidden pixel."""
    for circuit in (mixture(0.2), einet(4, 2)):
        module, (x, observed) = to_spflow(circuit), batch(circuit)
        draws, row = 2000, B // 2
        evidence = torch.where(observed[row], x[row], torch.nan).expand(draws, D).clone()
        torch.manual_seed(0)
        with torch.no_grad():
            samples = module.sample_with_evidence(evidence)
        mean = circuit.conditional_mean(x[row : row + 1], observed[row])[0]
        hidden = ~observed[row]
        assert 3 < hidden.sum() < D - 3
        torch.testing.assert_close(samples[:, ~hidden], x[row, ~hidden].expand(draws, -1))
        error = samples.std(0) / draws**0.5
        assert ((samples.mean(0) - mean).abs() <= 4.5 * error)[hidden].all()


def test_its_samples_have_our_density_and_ours_have_its():
    """log p is distributed alike over samples of both (Kolmogorov-Smirnov, two samples)."""
    for circuit in (mixture(0.2), einet(4, 2)):
        module, draws = to_spflow(circuit), 3000
        torch.manual_seed(1)
        with torch.no_grad():
            theirs = circuit.log_prob(module.sample(draws).double())
        ours = spflow_log_prob(module, circuit.sample(draws, seeded(3)).double())
        assert kstest(theirs.numpy(), ours.numpy()).pvalue > SMALLEST_P_VALUE


def test_structural_marginals_of_a_mixture():
    """SPFlow's own operation that removes pixels, not its NaN."""
    circuit = mixture()
    x, _ = batch(circuit)
    observed = torch.rand(D, generator=seeded(5)) < 0.5
    module = to_spflow(circuit).marginalize((~observed).nonzero().flatten().tolist())
    found = circuit.log_prob(x, observed)
    torch.testing.assert_close(found, spflow_log_prob(module, x), rtol=0, atol=NATS)


def test_our_mode_is_at_least_as_likely_as_its():
    """SPFlow's explanation is greedy, ours the exact maximum over x_u and the component."""
    circuit = mixture(0.05)
    module, (x, observed) = to_spflow(circuit), batch(circuit)

    def joint(images):
        return terms(circuit, images).amax(1)

    with torch.no_grad():
        theirs = module.mpe(data=torch.where(observed, x, torch.nan))
    ours = circuit.conditional_mode(x, observed)
    assert torch.equal(torch.where(observed, ours, 0), torch.where(observed, x, 0))
    assert (joint(ours) >= joint(theirs) - NATS).all()


def test_a_streamed_and_a_fitted_mixture_are_exported():
    stored = mixture()
    x, observed = batch(stored)
    decoded = DecodedComponents(stored.components.parameters, N, D, torch.device("cpu"))
    fitted = gmm.build(SHAPE, gmm.Settings(size=16))
    for circuit in (StreamedMixture(stored.log_weights, decoded), fitted):
        expected = spflow_log_prob(to_spflow(circuit), x, observed)
        torch.testing.assert_close(circuit.log_prob(x, observed), expected, rtol=0, atol=NATS)


def test_exporting_leaves_the_random_state_alone(circuit):
    torch.manual_seed(3)
    to_spflow(circuit)
    found = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(1))


# import


def test_a_mixture_comes_back_as_it_was():
    circuit = mixture()
    back = from_spflow(to_spflow(circuit))
    assert torch.equal(back.means, circuit.means.double())
    assert torch.equal(back.log_stds, circuit.log_stds.double())
    torch.testing.assert_close(back.log_weights, circuit.log_weights, rtol=0, atol=1e-14)
    x, observed = batch(circuit)
    torch.testing.assert_close(back.log_prob(x, observed), circuit.log_prob(x, observed))
    assert back.n_parameters == circuit.n_parameters


@pytest.mark.parametrize("case", [(4, 1, (4, 4)), (3, 2, (4, 6)), (2, 2, (6, 4))])
def test_an_einet_comes_back_as_it_was(case):
    circuit, shape = einet(*case), case[2]
    back = from_spflow(to_spflow(circuit), shape)
    x, observed = batch(circuit)
    expected = circuit.log_prob(x, observed)
    torch.testing.assert_close(back.log_prob(x, observed), expected, rtol=0, atol=NATS)
    for name, tensor in circuit.double().state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=1e-6, atol=1e-12)
    assert back.n_parameters == circuit.n_parameters


def test_mixtures_built_in_other_ways_are_imported():
    """One Product a component, one Normal a pixel, in another order; in SPFlow's own float32."""
    torch.manual_seed(0)
    order = [2, 0, 1]
    products = [Product([Normal(pixel) for pixel in order]) for _ in range(5)]
    module = Sum(products, weights=[0.1, 0.2, 0.3, 0.15, 0.25])
    circuit = from_spflow(module)
    assert circuit.means.dtype == torch.float32
    x = torch.randn(B, 3, generator=seeded(1))
    observed = torch.rand(B, 3, generator=seeded(2)) < 0.5
    expected = spflow_log_prob(module, x, observed).double()
    torch.testing.assert_close(circuit.log_prob(x, observed), expected, rtol=1e-5, atol=1e-5)
    nested = Sum(Product([Product(Normal([1, 2], out_channels=4)), Normal(0, out_channels=4)]))
    expected = spflow_log_prob(nested, x).double()
    torch.testing.assert_close(from_spflow(nested).log_prob(x), expected, rtol=1e-5, atol=1e-5)


# A circuit of a kind that has no layout in SPFlow.
Other = type("Other", (Circuit,), dict.fromkeys(Circuit.__abstractmethods__))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: to_spflow(Other()), "circuit of type Other"),
        (lambda: from_spflow(Normal([0, 1])), "expected one root unit"),
        (lambda: from_spflow(Product(Normal([0, 1]))), "Product: expected a Sum"),
        (lambda: from_spflow(Sum(Product(Normal([0, 2])))), "expected variables 0"),
        (lambda: from_spflow(Sum(Sum(Product(Normal([0, 1]))))), "Sum: expected Products"),
        (lambda: from_spflow(Sum(Product(Cat([Sum(Normal([0, 1]))], 1)))), "Sum: expected Prod"),
        (lambda: from_spflow(to_spflow(einet(2))), "expected a Sum"),
        (lambda: from_spflow(to_spflow(einet(2)), (2, 8)), "not those of an EiNet over (2, 8)"),
        (lambda: from_spflow(to_spflow(mixture()), (4, 4)), "at least two pieces"),
    ],
)
def test_what_is_neither_is_refused(call, named):
    assert named in refusal(call)
