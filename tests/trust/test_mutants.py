"""Deliberately broken copies of the code, each refused by the guarantee that it breaks.

A mutant is one function with a few characters of its source changed. Where that source is no
longer there, the code was rewritten: break it again, in its new form.
"""

import importlib
import inspect
import textwrap
from typing import NamedTuple

import pytest
from exact_answers import GUARANTEES, hold


class Mutant(NamedTuple):
    what: str
    function: str  # module:name in the package, where it is called
    before: str
    after: str
    broken: str  # the guarantee that it breaks


MUTANTS = [
    Mutant(
        "unnormalised conditionals",
        "models.pixelcnn:PixelCNN.log_prob",
        ".double().log_softmax(-1)",
        ".double()",
        "prior_sums_to_one",
    ),
    Mutant(
        "conditionals of the class before",
        "distillation.selection:_of_sorted",
        "len(classes) + classes).flatten()",
        "len(classes) + classes.roll(1)).flatten()",
        "beam_scores_are_log_p_of_their_class",
    ),
    Mutant(
        "first layer with mask B",
        "models.pixelcnn:GatedLayer.__init__",
        "end = 0 if first else 1",
        "end = 1",
        "prior_is_causal",
    ),
    Mutant(
        "residual around mask A",
        "models.pixelcnn:GatedLayer.forward",
        "out if self.first else out + h",
        "out + h",
        "prior_is_causal",
    ),
    Mutant(
        "prefix of another class",
        "models.prefixes:extend",
        "prefixes.classes[parents]",
        "prefixes.classes[parents.flip(0)]",
        "incremental_equals_full_pass",
    ),
    Mutant(
        "features of the wrong layer",
        "models.prefixes:position_features",
        "left[:, i - 1]",
        "left[:, i]",
        "incremental_equals_full_pass",
    ),
    Mutant(
        "siblings that share a row",
        "models.prefixes:extend",
        "prefixes.row_of[parents]",
        "prefixes.row_of[parents].clamp(max=0)",
        "incremental_equals_full_pass",
    ),
    Mutant(
        "one class for all",
        "distillation.exm:mean_over_classes",
        "log_prob_by_class.logsumexp(1) - math.log(log_prob_by_class.shape[1])",
        "log_prob_by_class[:, 0]",
        "exact_model_is_the_double_loop",
    ),
    Mutant(
        "latents decoded in another order",
        "distillation.mixtures:codes_of",
        "digits.unflatten(1, grid)",
        "digits.flip(1).unflatten(1, grid)",
        "exact_model_is_the_double_loop",
    ),
    Mutant(
        "weights of another latent",
        "distillation.dmrs:complete",
        "log_prob_by_class(prior, codes)",
        "log_prob_by_class(prior, codes.flip(0))",
        "all_latents_with_prior_weights_are_the_exact_model",
    ),
    Mutant(
        "prior weights where uniform ones are asked for",
        "distillation.mixtures:exact_mixture",
        "uniform_log_weights(len(log_prior)) if uniform else log_prior",
        "log_prior",
        "uniform_weights_are_equation_2",
    ),
    Mutant(
        "scores of the first class",
        "distillation.dmbs:search",
        "torch.tensor([class_]",
        "torch.tensor([0]",
        "beam_scores_are_log_p_of_their_class",
    ),
    Mutant(
        "children of the wrong parents",
        "distillation.dmbs:search",
        "best // n_children",
        "best % len(prefixes.codes)",
        "beam_scores_are_log_p_of_their_class",
    ),
    Mutant(
        "scores with their noise",
        "distillation.dmbs:search",
        "log_probs.gather(1, children)",
        "(log_probs + noise).gather(1, children)",
        "wide_beam_returns_every_latent",
    ),
    Mutant(
        "a beam that is one too narrow",
        "distillation.dmbs:search",
        "topk(min(width, len(totals)))",
        "topk(max(1, min(width - 1, len(totals))))",
        "wide_beam_returns_every_latent",
    ),
    Mutant(
        "a beam that keeps everything",
        "distillation.dmbs:search",
        "topk(min(width, len(totals)))",
        "topk(len(totals))",
        "beam_costs_are_linear",
    ),
    Mutant(
        "evaluations that are not counted",
        "models.pixelcnn:PixelCNN.next_log_probs",
        "len(prefixes.codes) * self.codebook_size",
        "len(prefixes.codes)",
        "beam_costs_are_linear",
    ),
    Mutant(
        "duplicates across classes",
        "distillation.dmbs:merge",
        "if code.tobytes() not in taken",
        "if True",
        "selections_are_distinct_and_complete",
    ),
    Mutant(
        "duplicates of earlier draws",
        "distillation.dmrs:new_rows",
        "key not in seen",
        "True",
        "dmrs_samples_without_replacement",
    ),
    Mutant(
        "noise of the wrong tail",
        "distillation.dmrs:gumbel",
        ".log_().neg_()",
        ".log_()",
        "dmrs_samples_without_replacement",
    ),
    Mutant(
        "noise of another child of the beam's prefix",
        "distillation.dmrs:conditioned_on_max",
        "maximum[:, None] - F.relu(v) - torch.log1p(torch.exp(-v.abs()))",
        "maximum[:, None] + below.flip(1)",
        "dmrs_samples_without_replacement",
    ),
    Mutant(
        "sampling that never turns to the beam",
        "distillation.dmrs:draw_ancestral",
        "batch >= JUDGED_BATCH",
        "False",
        "dmrs_ends_where_one_latent_has_all_the_mass",
    ),
    Mutant(
        "no log-determinant in the mixture",
        "circuits.gaussian:Chunk._product",
        "square if self.at_mode else square + modes",
        "square",
        "density_integrates_to_one",
    ),
    Mutant(
        "no log-determinant in the EiNet",
        "circuits.leaves:GaussianLeaves.log_density",
        "modes = log_mode(log_stds)",
        "modes = log_mode(0 * log_stds)",
        "density_integrates_to_one",
    ),
    Mutant(
        "hidden pixels at their peak, not integrated out",
        "circuits.leaves:GaussianLeaves.log_density",
        "if maximise else",
        "if not maximise else",
        "marginal_is_the_integral_of_the_joint",
    ),
    Mutant(
        "mask that is off by one pixel",
        "circuits.base:Circuit._asked",
        "observed = as_mask(observed, x, layout, self.device)",
        "observed = as_mask(observed, x, layout, self.device).roll(1, -1)",
        "marginal_is_the_integral_of_the_joint",
    ),
    Mutant(
        "pruned by the sums of another image",
        "circuits.gaussian:can_matter",
        "torch.maximum(least, total.to(values))",
        "torch.maximum(least, total.to(values).flip(0))",
        "log_likelihoods_on_mnist_are_exact",
    ),
    Mutant(
        "pixels of another mask",
        "circuits.gaussian:Evidence.__init__",
        "patterns.bool()",
        "patterns.bool().roll(1, 0)",
        "marginal_is_the_integral_of_the_joint",
    ),
    Mutant(
        "conditional that is the joint",
        "circuits.base:Circuit._conditional_log_prob",
        " - self._log_prob(x, observed)",
        "",
        "marginal_is_the_integral_of_the_joint",
    ),
    Mutant(
        "marginal of nothing that is not 1",
        "circuits.mixture:_zero_where_nothing_observed",
        "torch.where(some, log_prob, 0.0)",
        "log_prob + 1e-12",
        "nothing_observed_is_certain_and_everything_is_the_joint",
    ),
    Mutant(
        "means that forget the evidence",
        "circuits.mixture:StreamedMixture._conditional_mean",
        "evidence_of(x, observed)",
        "evidence_of(x, torch.zeros_like(observed))",
        "conditional_mean_is_that_of_quadrature",
    ),
    Mutant(
        "halves that are taken for each other",
        "circuits.einet:EinsumLayer.downward",
        "joint.sum(2)",
        "joint.sum(1)",
        "conditional_mean_is_that_of_quadrature",
    ),
    Mutant(
        "deviations that forget how far the means lie apart",
        "circuits.mixture:mixed_std",
        "(squares - means.square())",
        "0 * squares",
        "conditional_std_is_that_of_quadrature",
    ),
    Mutant(
        "deviations taken for variances",
        "circuits.deep:DeepCircuit._conditional_std",
        "stds.square()",
        "stds",
        "conditional_std_is_that_of_quadrature",
    ),
    Mutant(
        "deviations of observed pixels",
        "circuits.base:Circuit.conditional_std",
        "torch.where(mask, 0.0, stds)",
        "stds",
        "conditional_std_is_that_of_quadrature",
    ),
    Mutant(
        "p(z | c) in the place of p(c | z)",
        "circuits.mixture:StreamedMixture._class_log_prob",
        "self.log_classes.log_softmax(1)",
        "self.log_classes",
        "classes_follow_bayes_rule",
    ),
    Mutant(
        "classes without the weights of the root",
        "circuits.quad_tree:QuadTree.joint_log_prob",
        ".joint",
        ".scales.expand(self.n_classes, -1)",
        "classes_follow_bayes_rule",
    ),
    Mutant(
        "samples of uniformly drawn components",
        "circuits.mixture:StreamedMixture._sample",
        "self.log_weights.exp()",
        "torch.ones_like(self.log_weights)",
        "samples_follow_quadrature",
    ),
    Mutant(
        "conditional samples of the first component",
        "circuits.mixture:ComponentDraw.update",
        "start + first",
        "start",
        "samples_follow_quadrature",
    ),
    Mutant(
        "samples whose deviation is their variance",
        "circuits.deep:DeepCircuit._draw",
        "stds * noise",
        "stds * stds * noise",
        "samples_follow_quadrature",
    ),
    Mutant(
        "a mode that ignores how narrow components are",
        "circuits.mixture:StreamedMixture._conditional_mode",
        "at_mode=True",
        "at_mode=False",
        "mode_is_as_good_as_a_grid_search",
    ),
    Mutant(
        "a mode by sums, not by largest terms",
        "circuits.deep:DeepCircuit._conditional_mode",
        "maximise=True",
        "maximise=False",
        "mode_is_as_good_as_a_grid_search",
    ),
    Mutant(
        "a quad-tree whose regions have one child less",
        "circuits.quad_tree:SumProductLayer.upward",
        "self.groups[1:]",
        "self.groups[2:]",
        "marginal_is_the_integral_of_the_joint",
    ),
    Mutant(
        "a quad-tree that forgets what it divided by",
        "circuits.quad_tree:SumProductLayer.upward",
        "peaks.double().log().sum(0)",
        "0 * peaks.double().log().sum(0)",
        "density_integrates_to_one",
    ),
    Mutant(
        "a quad-tree whose flows skip the sums",
        "circuits.quad_tree:SumProductLayer.downward",
        "torch.div(own, sums[group], out=gradient[group])",
        "gradient[group] = own",
        "conditional_mean_is_that_of_quadrature",
    ),
    Mutant(
        "a quad-tree that takes all classes for equally likely",
        "circuits.quad_tree:QuadTree._descend",
        "torch.softmax(activations.scales, 0)",
        "torch.ones_like(activations.scales)",
        "mode_is_as_good_as_a_grid_search",
    ),
    Mutant(
        "a quad-tree that chooses a child's unit without its likelihood",
        "circuits.quad_tree:SumProductLayer.descend",
        "weights * below[child, theirs, :, image]",
        "weights",
        "mode_is_as_good_as_a_grid_search",
    ),
    Mutant(
        "a quad-tree whose largest term is a sum",
        "circuits.quad_tree:_largest_term",
        ".amax(1)",
        ".sum(1)",
        "mode_is_as_good_as_a_grid_search",
    ),
    Mutant(
        "EM of a quad-tree with weights of other units",
        "baselines.quad_tree:update",
        "expected.mul_(weights)",
        "expected.mul_(weights.flip(-1))",
        "em_never_lowers_the_likelihood",
    ),
    Mutant(
        "EM that adds the mean's square",
        "training.m_step:move_gaussians",
        "second - first.square()",
        "second + first.square()",
        "em_never_lowers_the_likelihood",
    ),
    Mutant(
        "EM with weights of the wrong half",
        "baselines.einet:update",
        "weights.mul_(layer.weights.flatten(2))",
        "weights.mul_(layer.weights.mT.flatten(2))",
        "em_never_lowers_the_likelihood",
    ),
    Mutant(
        "EM whose deviations are variances",
        "baselines.gmm:update",
        ".clamp(min=MIN_STD**2).sqrt()",
        ".clamp(min=MIN_STD**2)",
        "em_never_lowers_the_likelihood",
    ),
    Mutant(
        "batch norm left in training mode",
        "baselines.continuous_mixture:circuit",
        "model.eval()",
        "model.train()",
        "compiled_mixture_is_that_of_its_points",
    ),
    Mutant(
        "points that are no longer normal",
        "baselines.continuous_mixture:circuit",
        "model.settings.latent_dimension, generator)",
        "model.settings.latent_dimension, generator) / 2",
        "compiled_mixture_is_that_of_its_points",
    ),
    Mutant(
        "end bins without their tails",
        "circuits.grey_levels:log_mass",
        "torch.where(levels > 0,",
        "torch.where(levels > -1,",
        "grey_levels_sum_to_one",
    ),
    Mutant(
        "bins of the next level",
        "circuits.grey_levels:log_mass",
        "levels = torch.as_tensor(levels",
        "levels = 1 + torch.as_tensor(levels",
        "grey_levels_are_integrals_of_the_density",
    ),
    Mutant(
        "masses far above the mean as differences of numbers near 1",
        "circuits.grey_levels:log_mass",
        "above = a + b > 0",
        "above = a + b > torch.inf",
        "grey_levels_on_mnist_are_exact",
    ),
    Mutant(
        "the first pixel of a leaf for all",
        "circuits.leaves:GaussianLeaves.log_mass",
        "levels[:, pixel]]",
        "levels[:, 0]]",
        "grey_levels_on_mnist_are_exact",
    ),
    Mutant(
        "a parabola that is no bound",
        "circuits.grey_levels:Chunk._bound",
        "1 - width.square() / 12",
        "1 + width.square() / 12",
        "no_grey_levels_are_above_their_bound",
    ),
    Mutant(
        "a chord that ends at half the grey levels",
        "circuits.grey_levels:Chunk._chord",
        "(1, n_levels - 2)",
        "(1, n_levels // 2)",
        "no_grey_levels_are_above_their_bound",
    ),
    Mutant(
        "weights of a mixture counted in full",
        "circuits.mixture:mixture_parameters",
        "n_components - 1",
        "n_components",
        "parameters_are_those_of_a_walk",
    ),
    Mutant(
        "float32 where float64 is needed",
        "circuits.gaussian:relevant_pairs",
        "if trusted and values.dtype == torch.float64",
        "if True",
        "log_likelihoods_on_mnist_are_exact",
    ),
    Mutant(
        "weights of a product that are rounded",
        "circuits.gaussian:product_weights",
        "linear = quadratic * means",
        "linear = (quadratic * means).float().to(means)",
        "log_likelihoods_on_mnist_are_exact",
    ),
    Mutant(
        "components dropped that matter",
        "circuits.gaussian:can_matter",
        "- NEGLIGIBLE",
        "- 0.5",
        "density_integrates_to_one",
    ),
]


def break_(mutant: Mutant, monkeypatch) -> None:
    """Puts the broken copy of a function in its place."""
    module, _, name = mutant.function.partition(":")
    owner = importlib.import_module(f"vqdistill.{module}")
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mutant.before) == 1, f"{mutant.before!r} is not in {mutant.function}"
    source = source.replace(mutant.before, mutant.after)
    for part in classes:
        source = source.replace("super()", f"super({part}, self)")
    made: dict = {}
    exec(source, vars(importlib.import_module(function.__module__)), made)
    monkeypatch.setattr(owner, name, made[name])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_broken_copy_is_refused(mutant, monkeypatch):
    break_(mutant, monkeypatch)
    with pytest.raises(AssertionError) as refusal:
        hold(mutant.broken)
    assert "is not in" not in str(refusal.value)


def test_every_guarantee_has_a_mutant():
    assert {mutant.broken for mutant in MUTANTS} == set(GUARANTEES)
