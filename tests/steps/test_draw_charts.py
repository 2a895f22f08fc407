"""Tables that charts are drawn from."""

from helpers import refusal
from synthetic_tables import density_table

from vqdistill.files import write_csv
from vqdistill.steps.draw_charts import current_table


def test_a_table_of_older_code_is_refused_by_its_name_and_columns(tmp_path):
    density = density_table({("cm", "-"): (3.0, 0.9)}, components=[1])
    write_csv(tmp_path / "density.csv", density)
    assert len(current_table(tmp_path, "density")) == len(density)
    write_csv(tmp_path / "density.csv", density.drop(columns="bpd_q50"))
    said = refusal(current_table, tmp_path, "density")
    assert said.startswith(f"{tmp_path / 'density.csv'}: no column bpd_q50, expected")
