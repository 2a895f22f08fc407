import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from synthetic_tables import (
    codebook_table,
    costs_table,
    density_table,
    history_table,
    inpainting_table,
    pictures,
    sizes_table,
)

from vqdistill.reporting import style
from vqdistill.reporting.figures.costs_figure import costs_figure
from vqdistill.reporting.figures.density_figures import (
    axis_limits,
    density_curves,
    density_figure,
    weights_figure,
)
from vqdistill.reporting.figures.layout import METADATA, save
from vqdistill.reporting.figures.metrics_figure import metrics_figure
from vqdistill.reporting.figures.picture_figures import (
    ink,
    inpainting_figure,
    inpainting_sheet,
    samples_figure,
)
from vqdistill.reporting.figures.training_figures import codebook_figure, training_figure
from vqdistill.reporting.tables import density_summary, inpainting_summary

FEW = {("dmrs", "2x2"): (3.5, 0.9), ("mine", "4x4"): (3.3, 0.7)}


@pytest.fixture(scope="module")
def summary():
    return density_summary(density_table(components=[1, 16, 256, 4096]))


def drawn_lines(figure, panel=0):
    """Label -> line of every labelled line of a panel."""
    lines = figure.axes[panel].lines
    return {line.get_label(): line for line in lines if not line.get_label().startswith("_")}


def test_points_of_figure_1_are_the_tables_values(summary):
    figure = density_figure(summary, sizes_table())
    lines, above = drawn_lines(figure), drawn_lines(figure, panel=1)
    rows = summary[(summary["method"] == "dmbs") & (summary["weights"] == "uniform")]
    np.testing.assert_array_equal(lines["DMBS 4×4"].get_xdata(), rows["n_parameters"])
    np.testing.assert_array_equal(lines["DMBS 4×4"].get_ydata(), rows["bpd_mean"])
    exact = summary[(summary["method"] == "exm") & (summary["weights"] == "prior")]
    both = [panel["ExM 2×2 (K above)"] for panel in (above, lines)]
    found = np.concatenate([crosses.get_ydata() for crosses in both])
    np.testing.assert_array_equal(found, exact["bpd_mean"])
    crosses = both[1]
    assert crosses.get_linestyle() == "None"
    assert crosses.get_marker() == "x"


def test_marks_of_figure_1_follow_the_paper(summary):
    lines = drawn_lines(density_figure(summary, sizes_table()))
    assert lines["DMRS 2×2"].get_marker() == "s"
    assert lines["DMRS 2×2"].get_markerfacecolor() == "white"
    assert lines["EiNet"].get_markerfacecolor() == lines["EiNet"].get_color()
    assert lines["DMRS 2×2"].get_linestyle() != lines["DMRS 4×4"].get_linestyle()


def test_band_of_figure_1_is_the_interval():
    summary = density_summary(density_table(FEW, components=[1, 64, 256]))
    figure = density_figure(summary, sizes_table())
    colour = to_rgb(style.METHODS["dmrs"].colour)
    bands = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    band = next(c for c in bands if tuple(c.get_facecolor()[0][:3]) == colour)
    rows = summary[(summary["method"] == "dmrs") & (summary["weights"] == "uniform")]
    shown = rows["bpd_mean"] <= figure.axes[0].get_ylim()[1]
    assert shown.tolist() == [False, True, True]  # no band where the mean lies above the axis
    rows = rows[shown]
    corners = band.get_paths()[0].vertices[:, 1]
    assert corners.min() == pytest.approx(rows["bpd_low"].min())
    assert corners.max() == pytest.approx(rows["bpd_high"].max())


def test_dotted_lines_stand_at_the_teachers_sizes(summary):
    axes = density_figure(summary, sizes_table()).axes[0]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    found = {line.get_xdata()[0]: line.get_color() for line in dotted}
    assert set(found) == {4.15e6, 16e6, 328_000}
    assert found[328_000] == style.RED
    assert found[16e6] != style.RED


def test_labels_of_close_reconstructions_do_not_touch(summary):
    teachers = pd.DataFrame(
        {"grid": ["2x2", "4x4"], "codebook_size": 256, "split": "test"}
        | {"reconstruction_bpd": [2.05, 2.0]}
    )
    figure = density_figure(summary, sizes_table(), teachers)
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if "own codes" in text.get_text()]
    upper, lower = (text.get_window_extent() for text in texts)
    assert lower.y1 < upper.y0


def test_means_above_the_axis_are_in_a_panel_above(summary):
    axes, above = density_figure(summary, sizes_table()).axes
    curves = density_curves(summary)
    high = axis_limits(curves)[1]
    means = pd.concat([curve.rows["bpd_mean"] for curve in curves])
    assert (means > high).any()
    assert axes.get_ylim()[1] == above.get_ylim()[0] == high
    assert above.get_yscale() == "log"
    assert above.get_ylim()[1] > means.max()
    drawn = np.concatenate([line.get_ydata() for line in above.lines])
    assert set(means[means > high]) <= set(drawn)


def test_limits_show_the_best_of_every_curve_but_controls(summary):
    curves = density_curves(summary)
    low, high = axis_limits(curves)
    for curve in curves:
        if not curve.style.control:
            assert low < curve.rows["bpd_mean"].min() < high


def test_unknown_methods_get_a_look_of_their_own():
    looks = style.method_styles(["mine", "cm", "another", "dmrs"])
    assert list(looks) == ["dmrs", "cm", "another", "mine"]
    assert looks["mine"].label == "MINE"
    assert len({look.colour for look in looks.values()}) == 4
    assert len({look.marker for look in looks.values()}) == 4


def test_known_methods_differ_without_colour():
    looks = [(look.marker, look.filled) for look in style.METHODS.values()]
    assert len(set(looks)) == len(looks)


def test_titles_of_trained_models():
    assert style.model_title("vqvae-2x2-K16") == "VQ-VAE 2×2, K = 16"
    assert style.model_title("einet-4") == "EiNet, K = 4"
    assert style.model_title("gmm-64") == "plain mixture, N = 64"
    assert style.model_title("cm") == "CM"
    names = ["einet-16", "cm", "vqvae-4x4-K8", "einet-4", "vqvae-2x2-K16"]
    ordered = ["vqvae-2x2-K16", "vqvae-4x4-K8", "cm", "einet-4", "einet-16"]
    assert sorted(names, key=style.model_order) == ordered


@pytest.mark.parametrize("seeds", [[0], range(3)])
def test_all_figures_of_tables_are_drawn(seeds, tmp_path):
    density = density_table(FEW, seeds=seeds, components=[1, 4, 16])
    summary = density_summary(density)
    metrics = inpainting_summary(inpainting_table(density))
    references = pd.DataFrame(
        {"grid": "2x2", "codebook_size": [64, 4096], "split": "test", "reconstruction_bpd": 1.0}
    )
    drawn = [
        density_figure(summary, sizes_table(), references),
        density_figure(summary[summary["method"] == "exm"], sizes_table().iloc[:0]),
        weights_figure(density),
        metrics_figure(metrics, 0.99),
        costs_figure(costs_table(seeds=seeds)),
        costs_figure(costs_table(seeds=seeds, codes=4, components=[1, 4])),
        training_figure(history_table(seeds=seeds)),
        training_figure(history_table(models=["cm"], seeds=seeds)),
        codebook_figure(codebook_table(seeds=seeds)),
    ]
    for figure in drawn:
        if len(seeds) == 1:  # laying out takes a second each
            figure.savefig(tmp_path / "figure.png", dpi=40)
        assert figure.get_size_inches()[0] <= style.PAGE_WIDTH


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


def test_metrics_figure_shows_the_tables_values():
    metrics = inpainting_summary(inpainting_table(density_table(FEW, components=[1, 4])))
    axes = metrics_figure(metrics).axes[0]
    drawn = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
    rows = metrics[(metrics["method"] == "einet") & (metrics["size"] == 30)].set_index("mask")
    masks = ["left", "right", "top", "bottom", "centre"]
    np.testing.assert_array_equal(drawn["EiNet"], rows.loc[masks, "conditional_bpd_mean"])


@pytest.mark.parametrize(
    ("methods", "size"),
    [(["cm"], 8), (["exm 2x2", "dmrs 2x2", "dmrs 4x4", "dmbs 4x4", "mine 4x4", "cm", "einet"], 28)],
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
