"""Tables, claims and figures from the metric files; the reference, and the comparison with it."""


rule tabulate:
    input:
        density=all_runs("metrics/{name}/seed-{seed}/density.csv", SOURCES),
        inpainting=all_runs("metrics/{name}/seed-{seed}/inpainting.csv", SOURCES),
        costs=all_runs("metrics/{name}/seed-{seed}/costs.csv", TEACHERS),
        teacher=all_runs("metrics/{name}/seed-{seed}/teacher.csv", TEACHERS),
        bounds=all_runs("metrics/{name}/seed-{seed}/bounds.csv", TEACHERS),
        codebook=all_runs("metrics/{name}/seed-{seed}/codebook.csv", TEACHERS),
        records=records(),
        selections=all_runs("latents/{name}/seed-{seed}/record.json", TEACHERS),
        pictures=expand(f"{RESULTS}/metrics/{{name}}/seed-{SEEDS[0]}/pictures.npz", name=SOURCES),
    output:
        tables=[
            captioned(path, "Tables") if Path(path).stem in CAPTIONED else path for path in TABLES
        ],
        pictures=f"{RESULTS}/tables/pictures.npz",
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
        settings=quoted(config),
        folder=lambda wildcards, output: Path(output.pictures).parent,
        experiment=config["experiment"],
        code=lambda wildcards: version_of("tabulate"),
    shell:
        "python -m vqdistill.steps.tabulate"
        " --density {input.density} --inpainting {input.inpainting} --costs {input.costs}"
        " --teacher {input.teacher} --bounds {input.bounds} --codebook {input.codebook}"
        " --records {input.records} --selections {input.selections} --pictures {input.pictures}"
        " --tables {params.folder} --record {output.record} --settings {params.settings:q}"
        " --experiment {params.experiment} --code-version {params.code}"
        " > {log} 2>&1"


rule draw_charts:
    input:
        tables=TABLES,
        record=f"{RESULTS}/tables/record.json",
    output:
        **drawn(names.CHARTS),
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
        tables=lambda wildcards, input: Path(input.record).parent,
        folder=lambda wildcards, output: Path(output.png[0]).parent,
        code=lambda wildcards: version_of("draw_charts"),
    shell:
        "python -m vqdistill.steps.draw_charts"
        " --tables {params.tables} --figures {params.folder} --code-version {params.code}"
        " > {log} 2>&1"


rule draw_pictures:
    input:
        pictures=f"{RESULTS}/tables/pictures.npz",
    output:
        **drawn(names.PICTURES),
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
        folder=lambda wildcards, output: Path(output.png[0]).parent,
        code=lambda wildcards: version_of("draw_pictures"),
    shell:
        "python -m vqdistill.steps.draw_pictures"
        " --pictures {input.pictures} --figures {params.folder} --code-version {params.code}"
        " > {log} 2>&1"


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# One target for each method: all that its evaluation needs, and nothing of the other baselines.
for method in experiment.methods(config):

    rule:
        name:
            method
        input:
            all_runs(
                "metrics/{name}/seed-{seed}/density.csv", experiment.sources_of(config, method)
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
    params:
        plan=f"{RESULTS}/plan/plan.csv",
        settings=quoted(config),
        experiment=config["experiment"],
    shell:
        "python -m vqdistill.steps.plan --measured {input.measured} --plan {params.plan}"
        " --settings {params.settings:q} --experiment {params.experiment} 2>&1 | tee {log}"


rule measure:
    """Note what a finished experiment cost, for the plans of others."""
    input:
        TABLES,
    log:
        f"{RESULTS}/logs/measure.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, input: Path(input[0]).parents[1],
        measured=f"workflow/measured/{config['experiment']}.csv",
        settings=quoted(config),
    shell:
        "python -m vqdistill.steps.measure --results {params.results}"
        " --measured {params.measured} --settings {params.settings:q} 2>&1 | tee {log}"


rule reference:
    """Copy what is worth committing of a finished experiment to results/reference/."""
    input:
        TABLES,
        FIGURES,
    log:
        f"{RESULTS}/logs/reference.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, input: Path(input[0]).parents[1],
        reference=REFERENCE,
    shell:
        "python -m vqdistill.steps.copy_reference"
        " --results {params.results} --reference {params.reference} 2>&1 | tee {log}"


rule compare:
    """Compare a finished experiment with its committed reference, method by method."""
    input:
        summary=f"{RESULTS}/tables/density_summary.csv",
    log:
        f"{RESULTS}/logs/compare.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        reference=f"{REFERENCE}/tables/density_summary.csv",
        comparison=f"{RESULTS}/comparison/comparison.csv",
    shell:
        "python -m vqdistill.steps.compare_reference --summary {input.summary}"
        " --reference {params.reference} --comparison {params.comparison} 2>&1 | tee {log}"
