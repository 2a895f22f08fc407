"""Tables, claims and figures from the metric files; the reference, and the comparison with it."""


rule tabulate:
    input:
        **{
            table: all_runs(f"metrics/{{name}}/seed-{{seed}}/{table}.csv", TEACHERS)
            for table in names.OF_TEACHERS
        },
        density=all_runs("metrics/{name}/seed-{seed}/density.csv", [*TEACHERS, *BASELINES]),
        inpainting=all_runs("metrics/{name}/seed-{seed}/inpainting.csv", [*TEACHERS, *BASELINES]),
        records=records(),
        selections=all_runs("latents/{name}/seed-{seed}/record.json", TEACHERS),
        pictures=expand(
            f"{RESULTS}/metrics/{{name}}/seed-{EXPERIMENT.seeds[0]}/pictures.npz",
            name=[*TEACHERS, *BASELINES],
        ),
    output:
        [captioned(path, "Tables") if Path(path).stem in CAPTIONED else path for path in TABLES],
        f"{RESULTS}/tables/pictures.npz",
        record=f"{RESULTS}/tables/record.json",
    log:
        f"{RESULTS}/logs/tabulate.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        **options("tabulate", EXPERIMENT, tables=f"{RESULTS}/tables"),
    shell:
        "python -m vqdistill.steps.tabulate {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule draw_charts:
    input:
        TABLES,
        f"{RESULTS}/tables/record.json",
    output:
        drawn(names.CHARTS),
    log:
        f"{RESULTS}/logs/draw_charts.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        **options("draw_charts", tables=f"{RESULTS}/tables", figures=f"{RESULTS}/figures"),
    shell:
        "python -m vqdistill.steps.draw_charts {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule draw_pictures:
    input:
        pictures=f"{RESULTS}/tables/pictures.npz",
    output:
        drawn(names.PICTURES),
    log:
        f"{RESULTS}/logs/draw_pictures.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        **options("draw_pictures", figures=f"{RESULTS}/figures"),
    shell:
        "python -m vqdistill.steps.draw_pictures {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# One target for each method: all that its evaluation needs, and nothing of the other baselines.
for method in experiments.methods(EXPERIMENT):

    rule:
        name:
            method
        input:
            all_runs(
                "metrics/{name}/seed-{seed}/density.csv",
                experiments.evaluated_on(EXPERIMENT, method),
            ),


rule plan:
    """Print what the experiment will cost, from what finished ones were measured to cost."""
    input:
        measured=MEASURED,
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 2**10  # all that there are
    params:
        **options(
            "plan",
            EXPERIMENT,
            plan=f"{RESULTS}/plan/plan.csv",
            parts=f"{RESULTS}/plan/parts.csv",
        ),
    shell:
        "python -m vqdistill.steps.plan {params.files} {params.values}"
        " --threads {threads} 2>&1 | tee {log}"


rule measure:
    """Note what a finished experiment cost, for plans."""
    input:
        TABLES,
    log:
        f"{RESULTS}/logs/measure.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options("measure", EXPERIMENT, results=RESULTS, measured=f"{RESULTS}/measured.csv"),
    shell:
        "python -m vqdistill.steps.measure {params.files} {params.values} 2>&1 | tee {log}"


rule reference:
    """Copy what is worth committing of a finished experiment to results/reference/, with a page."""
    input:
        TABLES,
        FIGURES,
    log:
        f"{RESULTS}/logs/reference.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options(
            "copy_reference",
            results=RESULTS,
            tables=f"{RESULTS}/tables",
            captions=f"{workflow.basedir}/workflow/report",
            reference=REFERENCE,
            page=f"{REFERENCE}/figures.md",
        ),
    shell:
        "python -m vqdistill.steps.copy_reference {params.files} {params.values}"
        " 2>&1 | tee {log}"


rule redraw:
    """Draw the figures of the committed reference again, from what is committed."""
    log:
        f"{RESULTS}/logs/redraw.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options(
            "draw_reference",
            tables=f"{REFERENCE}/tables",
            pictures=f"{REFERENCE}/tables/pictures.npz",
            captions=f"{workflow.basedir}/workflow/report",
            figures=f"{REFERENCE}/figures",
            page=f"{REFERENCE}/figures.md",
        ),
    shell:
        "python -m vqdistill.steps.draw_reference {params.files} {params.values}"
        " 2>&1 | tee {log}"


rule compare:
    """Compare a finished experiment with its committed reference, method by method."""
    input:
        summary=f"{RESULTS}/tables/density_summary.csv",
        reference=reference_summary,
    log:
        f"{RESULTS}/logs/compare.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options("compare_reference", comparison=f"{RESULTS}/comparison/comparison.csv"),
    shell:
        "python -m vqdistill.steps.compare_reference {params.files} {params.values}"
        " 2>&1 | tee {log}"


# The names that can be asked for, in Snakemake's log: a misspelt one can be told what it is near to.
TARGETS = ["all", *(rule.name for rule in workflow.rules if not rule.has_wildcards())]
logger.info(None, extra={"event": "targets", "targets": [*TARGETS, *TABLES, *FIGURES]})
