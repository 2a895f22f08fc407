"""A user's run beside the reference that is committed, method by method."""

import pandas as pd

from vqdistill.errors import InputError
from vqdistill.reporting.tables import MODEL_KEYS, standard_weights

COMPARED = [key for key in MODEL_KEYS if key != "experiment"]


def compare(summary: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Test BPD of every model of a run beside that of the reference: rows of comparison.csv.

    Both are density_summary tables. `agrees` tells whether the 95 % intervals over seeds overlap;
    one seed, which has none, counts as its value.
    Raises InputError where the two share no model.
    """
    columns = [*COMPARED, "n_seeds", "bpd_mean", "bpd_low", "bpd_high"]
    ours, theirs = (
        standard_weights(table[table["split"] == "test"])[columns] for table in (summary, reference)
    )
    both = ours.merge(theirs, on=COMPARED, suffixes=("", "_reference"))
    if not len(both):
        raise InputError("comparison: the run and the reference share no model; same experiment?")
    both["difference"] = both["bpd_mean"] - both["bpd_mean_reference"]
    ends = {
        (end, whose): both[f"bpd_{end}{whose}"].fillna(both[f"bpd_mean{whose}"])
        for end in ("low", "high")
        for whose in ("", "_reference")
    }
    overlap = (ends["low", ""] <= ends["high", "_reference"]) & (
        ends["high", ""] >= ends["low", "_reference"]
    )
    both["agrees"] = overlap.map({True: "yes", False: "no"})
    return both.sort_values(COMPARED, ignore_index=True)
