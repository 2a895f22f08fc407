import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers import refusal
from matplotlib.collections import PolyCollection
from synthetic_tables import (
    MODELS,
    codebook_table,
    costs_table,
    density_table,
    gain_tables,
    history_table,
    inpainting_table,
    pictures,
    sizes_table,
)

from vqdistill.files import write_csv
from vqdistill.reporting import style
from vqdistill.reporting.figures.circuits_figure import circuits_figure
from vqdistill.reporting.figures.costs_figure import costs_figure
from vqdistill.reporting.figures.curves import density_curves, detail_limits
from vqdistill.reporting.figures.density_figures import FLOOR, density_figure, weights_figure
from vqdistill.reporting.figures.gain_figure import gain_figure
from vqdistill.reporting.figures.layout import METADATA, SEED, save
from vqdistill.reporting.figures.metrics_figure import metrics_figure
from vqdistill.reporting.figures.picture_figures import (
    NOTES,
    ink,
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
)
from vqdistill.reporting.figures.training_figures import codebook_figure, training_figure
from vqdistill.reporting.published import PUBLISHED
from vqdistill.reporting.tables import density_summary, inpainting_summary
from vqdistill.steps.draw_charts import current_table

COLOUR_BLIND = {  # what is seen of linear RGB (Machado et al., 2009)
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "deuteranopia": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
RGB_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)
FEW = {("dmrs", "2x2"): (3.5, 0.9), ("mine", "4x4"): (3.3, 0.7)}


@pytest.fixture(scope="module")
def density():
    return density_table(components=[1, 16, 256, 4096])


def drawn_lines(axes):
    """Label -> line of every labelled line of a panel."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def thin_lines(axes):
    return [line for line in axes.lines if line.get_linewidth() == SEED["linewidth"]]


def test_points_of_figure_1_are_the_tables_values_in_both_panels(density):
    summary = density_summary(density)
    rows = summary[(summary["method"] == "dmbs") & (summary["weights"] == "uniform")]
    exact = summary[(summary["method"] == "exm") & (summary["weights"] == "prior")]
    for axes in density_figure(density, sizes_table()).axes:
        line = drawn_lines(axes)["DMBS 4×4, K = 4096"]
        np.testing.assert_array_equal(line.get_xdata(), rows["n_parameters"])
        np.testing.assert_allclose(line.get_ydata(), rows["bpd_mean"], rtol=1e-12)
        crosses = drawn_lines(axes)["ExM 2×2 (K beside it)"]
        np.testing.assert_allclose(crosses.get_ydata(), exact["bpd_mean"], rtol=1e-12)
        assert (crosses.get_linestyle(), crosses.get_marker()) == ("None", "x")


def test_thin_lines_of_figure_1_are_seeds_and_there_are_no_bands(density):
    figure = density_figure(density, sizes_table())
    run = density[(density["method"] == "cm") & (density["seed"] == 3)]
    assert "thin: one seed" in [text.get_text() for text in figure.legends[0].get_texts()]
    for axes in figure.axes:
        assert not any(isinstance(one, PolyCollection) for one in axes.collections)
        drawn = [line.get_ydata().tolist() for line in thin_lines(axes)]
        assert run["bpd"].tolist() in drawn
        assert len(drawn) == 1 + 5 * 5  # ExM's ticks; DMRS twice, DMBS, CM and EiNet; no controls
    alone = density_figure(density[density["seed"] == 0], sizes_table())
    assert not any(thin_lines(axes) for axes in alone.axes)


def test_marks_of_figure_1_follow_the_paper(density):
    lines = drawn_lines(density_figure(density, sizes_table()).axes[1])
    sampled = lines["DMRS 2×2, K = 4096"]
    assert (sampled.get_marker(), sampled.get_markerfacecolor()) == ("s", "white")
    einet = lines["EiNet, K = 2, 4, 8, …, 30"]
    assert einet.get_markerfacecolor() == einet.get_color()
    assert sampled.get_linestyle() != lines["DMRS 4×4, K = 4096"].get_linestyle()


def test_dotted_lines_stand_at_the_teachers_sizes(density):
    axes = density_figure(density, sizes_table()).axes[1]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    found = {line.get_xdata()[0]: line.get_color() for line in dotted}
    assert set(found) == {4.15e6, 16e6, 328_000}
    assert found[328_000] == style.RED
    assert found[16e6] != style.RED


def test_the_floor_is_a_thin_line_with_its_name(density):
    figure = density_figure(density, sizes_table())
    floor = density.loc[(density["method"] == "gmm") & (density["size"] == 1), "bpd"].mean()
    for axes in figure.axes:
        assert list(drawn_lines(axes)[FLOOR].get_ydata()) == [floor, floor]
    assert FLOOR in [text.get_text() for text in figure.legends[0].get_texts()]


def test_labels_of_figure_1_do_not_touch_marks_or_each_other(density):
    teachers = pd.DataFrame(
        {"grid": ["2x2", "4x4"], "codebook_size": 256, "split": "test"}
        | {"reconstruction_bpd": [2.55, 2.5]}
    )
    figure = density_figure(density, sizes_table(), teachers)
    figure.draw_without_rendering()
    axes = figure.axes[1]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    crosses = drawn_lines(axes)["ExM 2×2 (K beside it)"]
    shown = [point for point in crosses.get_xydata() if point[1] < axes.get_ylim()[1]]
    assert shown
    for point in axes.transData.transform(shown):
        assert not any(box.contains(*point) for box in boxes)


def test_one_panel_has_all_values_and_one_the_best(density):
    everything, detail = density_figure(density, sizes_table()).axes
    shown = density[~density["method"].isin(["deep", "flat", "quad_tree"])]
    test = density_curves(shown)
    bottom, top = everything.get_ylim()
    assert everything.get_yscale() == "log"
    assert bottom < shown["bpd"].min() < shown["bpd"].max() < top
    low, high = detail.get_ylim()
    assert (low, high) == detail_limits(test)
    best = [curve.means()["bpd"].min() for curve in test if not curve.style.control]
    assert low < min(best)
    assert high > np.median(best)
    assert high - low < 3 < top  # where curves can be told apart


def test_deep_circuits_are_in_figure_3_and_not_in_figure_1(density):
    labels = {"deep circuit 2×2, K = 4096, units = 2, 4, 8", "quad-tree, K = 4, 8, 16, …, 128"}
    labels |= {"flat mixture 4×4, K = 4096, N = 3, 12, 45"}
    for axes in circuits_figure(density).axes:
        assert labels < set(drawn_lines(axes))
    for axes in density_figure(density, sizes_table()).axes:
        assert not labels & set(drawn_lines(axes))


def test_both_panels_of_figure_3_have_the_tables_values(density):
    panels = circuits_figure(density).axes
    assert len(panels) == 2
    for axes, metric in zip(panels, ["bpd", "bpd_discrete"], strict=True):
        rows = density[density["method"] == "quad_tree"].groupby("n_parameters")[metric].mean()
        line = drawn_lines(axes)["quad-tree, K = 4, 8, 16, …, 128"]
        np.testing.assert_array_equal(line.get_xdata(), rows.index)
        np.testing.assert_allclose(line.get_ydata(), rows, rtol=1e-12)
        run = density[(density["method"] == "cm") & (density["seed"] == 3)]
        seen = [line.get_ydata()[-1] for line in thin_lines(axes)]
        assert run[metric].iloc[-1] in seen


@pytest.mark.parametrize("bits", [1842.0, np.inf])
def test_no_line_of_figure_3_breaks_at_an_edge(density, bits):
    """What lies beyond the panels is left out, with the lines to it, and all else is inside."""
    heavy = (density["method"] == "dmbs") & (density["seed"] == 4)
    heavy = density.assign(bpd=density["bpd"].where(~heavy, bits))
    assert density["bpd"].max() > 100
    for axes in circuits_figure(heavy).axes:
        low, high = axes.get_ylim()
        drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
        values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in drawn])
        assert np.isfinite(values).sum() > 100
        assert low < np.nanmin(values) < np.nanmax(values) < high < 20


def test_a_teachers_exact_density_is_a_line_of_its_style(density):
    exact = density[(density["method"] == "exm") & (density["codebook_size"] == 96)]
    of_teacher = density.replace({"codebook_size": {4096: 96}})
    for axes, metric in zip(circuits_figure(of_teacher).axes, ["bpd", "bpd_discrete"], strict=True):
        mean = exact.loc[exact["weights"] == "prior", metric].mean()
        across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
        assert [line.get_ydata()[0] for line in across] == [pytest.approx(mean)]
        of_deep = drawn_lines(axes)["deep circuit 2×2, K = 96, units = 2, 4, 8"]
        assert across[0].get_linestyle() == of_deep.get_linestyle()
        assert of_deep.get_linestyle() != across[0].get_marker()
    for axes in circuits_figure(density).axes:  # no exact model of K = 4096
        assert not [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]


def test_published_results_are_stars_in_discrete_bits_of_mnist_alone(density):
    def stars(table):
        return [
            [line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "*"]
            for axes in circuits_figure(table).axes
        ]

    numbers = [[one.n_parameters, one.bits] for one in PUBLISHED["mnist"]]
    assert stars(density) == [[], numbers]
    assert stars(density.assign(dataset="digits")) == [[], []]
    assert [one.bits for one in PUBLISHED["mnist"] if "quad-tree" in one.circuit][::3] == [
        1.2832,
        1.1753,
    ]


def test_figure_3_without_discrete_bits_has_one_panel(density):
    for table in (density.drop(columns="bpd_discrete"), density.assign(bpd_discrete=np.nan)):
        (axes,) = circuits_figure(table).axes
        assert "discrete" not in axes.get_title()
    some = density.assign(bpd_discrete=density["bpd"].where(density["method"] == "quad_tree"))
    assert len(circuits_figure(some).axes) == 2


def test_the_arrow_of_figure_3_touches_no_mark(density):
    figure = circuits_figure(density)
    figure.draw_without_rendering()
    for axes in figure.axes:
        (box,) = (text.get_window_extent().padded(3) for text in axes.texts)
        points = np.concatenate([line.get_xydata() for line in axes.lines])
        points = axes.transData.transform(points[np.isfinite(points).all(axis=1)])
        assert not any(box.contains(*point) for point in points)


@pytest.mark.parametrize("bits", [1842.0, 1e100, np.inf])
def test_heavy_tails_leave_the_range_of_the_best_as_it_is(density, bits):
    """A log-likelihood of −10⁶ nats is 1,842 bits a pixel; a model may have infinitely many."""
    hit = (density["method"] == "dmbs") & (density["seed"] == 4)
    heavy = density.assign(bpd=density["bpd"].where(~hit, bits))
    figure = density_figure(heavy, sizes_table())
    figure.draw_without_rendering()
    low, high = figure.axes[1].get_ylim()
    quiet = density_figure(density, sizes_table()).axes[1].get_ylim()
    assert (low, high) == pytest.approx(quiet, abs=0.3)
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_every_figure_names_k_and_n(density):
    metrics = inpainting_summary(inpainting_table(density))
    name = "DMRS 4×4, K = 4096"
    assert name in drawn_lines(density_figure(density, sizes_table()).axes[1])
    title = density_figure(density, sizes_table()).legends[0].get_title().get_text()
    assert title.endswith("N = 1, 16, 256, 4096")
    said = [text.get_text() for text in metrics_figure(metrics).legends[0].get_texts()]
    assert f"{name}, N = 4096" in said
    assert "EiNet, K = 30" in said
    assert "plain mixture, N = 1" in said
    titles = [axes.get_title() for axes in weights_figure(density).axes]
    assert "4×4, K = 4096, N = 1, 16, 256, 4096" in titles
    assert "4×4, K = 4096" in [axes.get_title() for axes in costs_figure(costs_table()).axes]
    for figure in (inpainting_figure(pictures()), inpainting_sheet(pictures(), "left")):
        labels = [text.get_text() for text in figure.axes[0].texts]
        assert {"DMRS 4×4, sample", "K = 4096, N = 16384, mean", "K = 30, mean"} <= set(labels)
        assert {"deep circuit 4×4, sample", "K = 4096, units = 30, mean"} <= set(labels)
    labels = [text.get_text() for text in samples_figure(pictures()).axes[0].texts]
    assert "DMRS 4×4\nK = 4096, N = 16384" in labels


def test_what_looks_wrong_in_pictures_is_explained_in_them():
    def said(methods):
        return samples_figure(pictures(methods)).axes[0].texts[-1].get_text()

    assert said(["cm", "random 4x4"]).splitlines() == list(NOTES.values())
    assert said(["einet"]) == ""


def test_unknown_methods_get_a_look_of_their_own():
    looks = style.method_styles(["mine", "cm", "another", "dmrs"])
    assert list(looks) == ["dmrs", "cm", "another", "mine"]
    assert looks["mine"].label == "MINE"
    assert len({look.colour for look in looks.values()}) == 4
    assert len({look.marker for look in looks.values()}) == 4


def test_known_methods_differ_without_colour():
    looks = [(look.marker, look.filled) for look in style.METHODS.values()]
    assert len(set(looks)) == len(looks)
    assert not {look[0] for look in looks} & {*style.FREE_MARKERS, "*"}


@pytest.mark.parametrize("seen", list(COLOUR_BLIND))
def test_colours_can_be_told_apart_by_colour_blind_readers(seen):
    """A distance of 10 in CIELAB is a clear one."""
    main = [look.colour for look in style.METHODS.values() if not look.control]
    linear = np.array([mpl.colors.to_rgb(colour) for colour in main]) ** 2.2
    xyz = np.clip(linear @ np.array(COLOUR_BLIND[seen]).T, 0, 1) @ RGB_TO_XYZ.T
    x, y, z = np.cbrt(xyz / RGB_TO_XYZ.sum(axis=1)).T
    lab = np.stack([116 * y, 500 * (x - y), 200 * (y - z)], axis=1)
    assert min(np.linalg.norm(one - other) for one, other in combinations(lab, 2)) > 12


def test_titles_of_trained_models():
    assert style.model_title("vqvae-2x2-K16") == "VQ-VAE 2×2, K = 16"
    assert style.model_title("einet-4") == "EiNet, K = 4"
    assert style.model_title("gmm-64") == "plain mixture, N = 64"
    assert style.model_title("quad_tree-16") == "quad-tree, K = 16"
    assert style.model_title("deep-2x2-K16-8") == "deep circuit 2×2, K = 16, units = 8"
    assert style.model_title("cm") == "CM"
    ordered = ["vqvae-2x2-K16", "vqvae-4x4-K8", "deep-2x2-K16-4", "deep-2x2-K16-16"]
    ordered += ["deep-4x4-K8-4", "cm", "einet-4", "einet-16", "quad_tree-4", "gmm-1", "mine"]
    backwards = ordered[::-1]
    assert sorted(backwards, key=style.model_order) == ordered


@pytest.mark.parametrize("seeds", [[0], range(3)])
def test_all_figures_of_tables_are_drawn(seeds, tmp_path):
    density = density_table(FEW, seeds=seeds, components=[1, 4, 16])
    metrics = inpainting_summary(inpainting_table(density))
    references = pd.DataFrame(
        {"grid": "2x2", "codebook_size": [64, 4096], "split": "test", "reconstruction_bpd": 1.0}
    )
    no_sizes = sizes_table().iloc[:0]
    drawn = [
        density_figure(density, sizes_table(), references),
        density_figure(density[density["method"] == "exm"], no_sizes),
        circuits_figure(density),
        circuits_figure(density[density["method"] == "exm"]),
        weights_figure(density),
        metrics_figure(metrics, 0.99),
        costs_figure(costs_table(seeds=seeds)),
        costs_figure(costs_table(seeds=seeds, codes=4, components=[1, 4])),
        training_figure(history_table(seeds=seeds)),
        training_figure(history_table(models=["cm"], seeds=seeds)),
        codebook_figure(codebook_table(seeds=seeds)),
        gain_figure(*gain_tables(seeds)),
        gain_figure(*gain_tables(seeds, grids=())),
    ]
    for figure in drawn:
        if len(seeds) == 1:  # laying out takes a second each
            figure.savefig(tmp_path / "figure.png", dpi=40)
        assert figure.get_size_inches()[0] <= style.PAGE_WIDTH


def test_bars_of_a_gain_are_the_tables_parts():
    blocks, places, pixels = gain_tables(grids=("4x4",))
    bars = gain_figure(blocks, places, pixels).axes[1].patches
    by_method = pixels.pivot_table("bpd", ["seed", "sigma", "grey"], "method")
    gains = (by_method["dmrs"] - by_method["deep"]).groupby(["sigma", "grey"]).mean()
    heights = [bar.get_height() for bar in bars if bar.get_height()]
    np.testing.assert_allclose(sorted(heights), sorted(gains[gains != 0]))
    ends = {}
    for bar in bars:
        ends.setdefault((bar.get_x(), bar.get_height() > 0), []).append(bar)
    for (_, above), parts in ends.items():
        if above:
            total = sum(bar.get_height() for bar in parts)
            assert max(bar.get_y() + bar.get_height() for bar in parts) == pytest.approx(total)


def test_training_figure_leaves_a_single_jump_out_but_no_best_epoch():
    history = history_table(models=["cm"])
    quiet = training_figure(history).axes[0].get_ylim()
    jump = (history["seed"] == 1) & (history["epoch"] == 20)
    history.loc[jump, "validation_loss"] = 1e6
    low, high = training_figure(history).axes[0].get_ylim()
    assert low == pytest.approx(quiet[0], abs=20)
    assert high < quiet[1] + 1000
    history["best"] = jump
    assert training_figure(history).axes[0].get_ylim()[1] > 1e6


def test_titles_of_trained_models_do_not_touch():
    models = [f"deep-{grid}-K4096-{size}" for grid in ("2x2", "4x4") for size in (8, 16)]
    figure = training_figure(history_table(models, seeds=[0]))
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_metrics_figure_shows_the_tables_values():
    metrics = inpainting_summary(inpainting_table(density_table(FEW, components=[1, 4])))
    axes = metrics_figure(metrics).axes[0]
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
    rows = metrics[(metrics["method"] == "einet") & (metrics["size"] == 30)].set_index("mask")
    masks = ["left", "right", "top", "bottom", "centre"]
    expected = rows.loc[masks, "conditional_bpd_geometric_mean"]
    np.testing.assert_array_equal(drawn["EiNet, K = 30"], expected)


@pytest.mark.parametrize("real", [0.05, 0.99])
def test_what_metrics_are_compared_with_is_within_the_axes(real):
    """The true images and the classifier's accuracy, wherever the models are."""
    inpainting = inpainting_table(density_table(FEW, components=[1, 4]))
    inpainting = inpainting.assign(sharpness_truth=9.0, coherence_truth=0.0)
    _, accuracy, *axes = metrics_figure(inpainting_summary(inpainting), real).axes
    for panel, value in zip([accuracy, *axes], [real, 9.0, 0.0], strict=True):
        low, high = panel.get_ylim()
        assert low < value < high


def test_metrics_figure_of_heavy_tails_and_constant_images():
    inpainting = inpainting_table(density_table(FEW, components=[1, 4]))
    hit = (inpainting["method"] == "dmrs") & (inpainting["seed"] == 4)
    for bits in (1e5, np.inf):
        heavy = inpainting.assign(
            conditional_bpd=inpainting["conditional_bpd"].where(~hit, bits),
            sharpness_truth=0.0, coherence_truth=0.0,
        )  # fmt: skip
        figure = metrics_figure(inpainting_summary(heavy))
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert np.isfinite(axes.get_ylim()).all()
        assert figure.axes[0].get_ylim()[1] < 1e6


@pytest.mark.parametrize(
    ("methods", "size"),
    [(["cm"], 8), (["exm 2x2", "deep 2x2", *MODELS, "mine 4x4"], 28)],
)
def test_pictures_fit_a_page(methods, size, tmp_path):
    arrays = pictures(methods, h=size)
    for figure in (
        inpainting_figure(arrays),
        inpainting_sheet(arrays, "centre"),
        samples_figure(arrays),
    ):
        figure.savefig(tmp_path / "figure.png", dpi=40)
        width, height = figure.get_size_inches()
        assert width <= style.PAGE_WIDTH + 1e-9
        assert height <= 9.5


def test_observed_ink_is_blue_and_hidden_ink_is_red():
    hidden = np.array([[True, False]])
    full = ink(np.ones((1, 2)), hidden)
    np.testing.assert_allclose(full[0, 0], style.UNOBSERVED)
    np.testing.assert_allclose(full[0, 1], style.OBSERVED)
    query = ink(np.ones((1, 2)), hidden, blank=True)
    np.testing.assert_allclose(query[0, 0], style.UNOBSERVED_PAPER)
    np.testing.assert_allclose(query[0, 1], style.OBSERVED)


def test_a_table_of_other_code_is_refused_by_its_name_and_columns(tmp_path):
    density = density_table(FEW, components=[1])
    write_csv(tmp_path / "density.csv", density)
    assert len(current_table(tmp_path, "density")) == len(density)
    write_csv(tmp_path / "density.csv", density.drop(columns="bpd_discrete"))
    assert len(current_table(tmp_path, "density")) == len(density)
    write_csv(tmp_path / "density.csv", density.drop(columns="bpd_q50"))
    said = refusal(current_table, tmp_path, "density")
    assert said.startswith(f"{tmp_path / 'density.csv'}: no column bpd_q50, expected")


def test_saved_twice_the_bytes_are_the_same(tmp_path):
    table = codebook_table(sizes=[("2x2", 16)])
    for name in ("one", "two"):
        save(codebook_figure(table), tmp_path / name / "codebook")
    first, second = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in first] == ["codebook.pdf", "codebook.png", "codebook.svg"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


DRAWN = """
import sys
import vqdistill.steps
from synthetic_tables import codebook_table
from vqdistill.reporting.figures.layout import save
from vqdistill.reporting.figures.training_figures import codebook_figure

save(codebook_figure(codebook_table(sizes=[("2x2", 16)])), sys.argv[1])
"""


def test_figures_are_the_same_whatever_matplotlib_is_told(tmp_path):
    """By a notebook's backend, which is not here, and by a user's settings."""
    settings = {"font.size": 30, "axes.facecolor": "red", "axes.grid": True, "svg.fonttype": "none"}
    settings |= {"savefig.bbox": "tight", "pdf.compression": 0, "lines.linestyle": "--"}
    lines = [f"{name}: {value}\n" for name, value in settings.items()]
    (tmp_path / "matplotlibrc").write_text("".join(lines), encoding="utf-8")
    notebook = {"MPLBACKEND": "module://a_notebook.backend", "SOURCE_DATE_EPOCH": "0"}
    notebook |= {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    (tmp_path / "plain").mkdir()
    drawn = {}
    for name, folder, variables in (("plain", "plain", {}), ("told", ".", notebook)):
        subprocess.run(
            [sys.executable, "-c", DRAWN, tmp_path / name / "figure"],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | variables,
            cwd=tmp_path / folder,
            check=True,
        )
        drawn[name] = [(tmp_path / name / f"figure.{kind}").read_bytes() for kind in METADATA]
    assert drawn["plain"] == drawn["told"]
