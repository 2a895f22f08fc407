"""Tables, claims and figures from the metric files; the reference, and the comparison with it."""

from vqdistill.reporting.names import FIGURES as FIGURE_NAMES
from vqdistill.reporting.names import TABLES as TABLE_NAMES

TABLES = [f"{RESULTS}/tables/{name}.csv" for name in TABLE_NAMES]
FIGURES = [f"{RESULTS}/figures/{name}.png" for name in FIGURE_NAMES]


def caption(name):
    """The caption of a table or figure in the report."""
    return workflow.source_path(f"../report/{name}.rst")


def records():
    """The records of all trainings and evaluations."""
    trained = [f"{kind}-{source}" for source in TEACHERS for kind in ("vqvae", "prior")]
    return [
        *all_runs("models/{name}/seed-{seed}/record.json", [*trained, *BASELINES]),
        *all_runs("metrics/{name}/seed-{seed}/record.json", SOURCES),
        f"{CLASSIFIER}/record.json",
    ]


rule tabulate:
    input:
        density=all_runs("metrics/{name}/seed-{seed}/density.csv", SOURCES),
        inpainting=all_runs("metrics/{name}/seed-{seed}/inpainting.csv", SOURCES),
        costs=all_runs("metrics/{name}/seed-{seed}/costs.csv", TEACHERS),
        teacher=all_runs("metrics/{name}/seed-{seed}/teacher.csv", TEACHERS),
        bounds=all_runs("metrics/{name}/seed-{seed}/bounds.csv", TEACHERS),
        codebook=all_runs("metrics/{name}/seed-{seed}/codebook.csv", TEACHERS),
        records=records(),
        pictures=expand(f"{RESULTS}/metrics/{{name}}/seed-{SEEDS[0]}/pictures.npz", name=SOURCES),
    output:
        tables=TABLES,
        pictures=f"{RESULTS}/tables/pictures.npz",
    log:
        f"{RESULTS}/logs/tabulate.log",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=quoted(config),
        folder=f"{RESULTS}/tables",
        experiment=config["experiment"],
        code=version_of("tabulate"),
    shell:
        "python -m vqdistill.steps.tabulate"
        " --density {input.density} --inpainting {input.inpainting} --costs {input.costs}"
        " --teacher {input.teacher} --bounds {input.bounds} --codebook {input.codebook}"
        " --records {input.records} --pictures {input.pictures}"
        " --tables {params.folder} --settings {params.settings:q}"
        " --experiment {params.experiment} --code-version {params.code}"
        " > {log} 2>&1"


rule draw_figures:
    input:
        tables=TABLES,
        pictures=f"{RESULTS}/tables/pictures.npz",
    output:
        png=FIGURES,
        pdf=[path.replace(".png", ".pdf") for path in FIGURES],
        svg=[path.replace(".png", ".svg") for path in FIGURES],
    log:
        f"{RESULTS}/logs/draw_figures.log",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        tables=f"{RESULTS}/tables",
        folder=f"{RESULTS}/figures",
        code=version_of("draw_figures"),
    shell:
        "python -m vqdistill.steps.draw_figures"
        " --tables {params.tables} --figures {params.folder} --code-version {params.code}"
        " > {log} 2>&1"
