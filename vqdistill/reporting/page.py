"""A page of a reference: the verdicts, the largest models, and every figure with its caption."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vqdistill.reporting.style import method_styles, model_label, numbers_label
from vqdistill.reporting.tables import in_order, standard_weights

KINDS = ("reproduced", "not reproduced", "undecided")


def verdicts(claims: pd.DataFrame) -> pd.DataFrame:
    """One row a statement: the numbers of its measures by verdict, and the verdict of all.

    A statement is reproduced, not reproduced or undecided where all of its measures are; else it
    is in part what its measures are.
    """
    counts = claims.groupby(["claim", "statement"])["verdict"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=list(KINDS), fill_value=0)
    mixed = (counts > 0).sum(axis=1) > 1
    return counts.assign(verdict=counts.idxmax(axis=1).where(~mixed, "in part")).reset_index()


def largest_of_each(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of density_summary on test images: of each method, grid and K the largest N, and every
    size, with standard weights, in the order of display."""
    table = standard_weights(summary[summary["split"] == "test"])
    keys = ["method", "grid", "codebook_size", "size"]
    table = table[table["n_components"] == table.groupby(keys)["n_components"].transform("max")]
    places = {pair: place for place, pair in enumerate(in_order(table))}
    order = [places[pair] for pair in table[["method", "grid"]].itertuples(index=False, name=None)]
    return table.assign(_order=order).sort_values(["_order", *keys]).drop(columns="_order")


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """'3.51 [3.43, 3.58]', and '3.51' where there is no interval."""
    ends = f" [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite([low, high]).all() else ""
    return f"{mean:.{digits}f}{ends}".replace("-", "−")


def page(
    experiment: str,
    claims: pd.DataFrame,
    summary: pd.DataFrame,
    timings: pd.DataFrame,
    captions: Mapping[str, str],
) -> str:
    """Markdown of a reference's page, from its tables claims, density_summary and timings.

    captions: text by name of figure. Figures lie in figures/ and tables in tables/ beside the page.
    """
    n_seeds = summary["n_seeds"].max()
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "one seed"
    commits = sorted(timings["commit"].dropna().unique()) if "commit" in timings else []
    made = f" Made by the code of {', '.join(f'`{c}`' for c in commits)}." if commits else ""
    parts = [
        f"# All figures of the experiment `{experiment}`",
        f"`snakemake reference` writes this page from the tables in [tables/](tables); {seeds},"
        f" {summary['dataset'].iloc[0]}.{made}",
        "## The statements",
        "Statements 1 to 8 are the paper's, 9 to 12 are ours. Each is tested by several measures,"
        " and a measure has one of three verdicts ([claims.csv](tables/claims.csv)).",
        _markdown(_verdict_rows(claims)),
        "## The largest models",
        "Test bits per dimension, lower is better: mean and 95 % t-interval over seeds; the"
        " geometric interval, which no heavy tail takes below zero; the median over seeds; and the"
        " median over images of the seed in the middle.",
        _markdown(_model_rows(summary)),
        "## Figures",
    ]
    for name, said in captions.items():
        parts += [f"### {name}", f"![{name}](figures/{name}.png)", said.strip()]
    return "\n\n".join(parts) + "\n"


def _verdict_rows(claims: pd.DataFrame) -> list[list[object]]:
    rows = verdicts(claims)[["claim", "statement", "verdict", *KINDS]]
    head = ["", "statement", "verdict", *(f"measures {kind}" for kind in KINDS)]
    return [head, *rows.to_numpy().tolist()]


def _model_rows(summary: pd.DataFrame) -> list[list[object]]:
    styles = method_styles(summary["method"])
    rows: list[list[object]] = [
        ["model", "parameters", "BPD", "geometric", "median", "median image"]
    ]
    for row in largest_of_each(summary).to_dict("records"):
        numbers = (row["codebook_size"], row["n_components"], row["size"])
        label = model_label(styles[row["method"]], row["grid"])
        bpd = (interval(*(row[f"{kind}{end}"] for end in ("mean", "low", "high")))
               for kind in ("bpd_", "bpd_geometric_"))  # fmt: skip
        medians = (f"{row[name]:.2f}" for name in ("bpd_median", "bpd_q50_median"))
        name = ", ".join(filter(None, [label, numbers_label(row["method"], *numbers)]))
        rows.append([name, f"{row['n_parameters']:,}", *bpd, *medians])
    return rows


def _markdown(rows: list[list[object]]) -> str:
    """A table from rows of cells, the first of them its head."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
