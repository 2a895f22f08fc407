"""The images, prepared once for the whole experiment."""


rule prepare_data:
    output:
        images=IMAGES,
        record=f"{RESULTS}/data/record.json",
    log:
        f"{RESULTS}/logs/prepare_data.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare_data.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=quoted(experiment.data_settings(config)),
        experiment=config["experiment"],
        code=lambda wildcards: version_of("prepare_data"),
    shell:
        "python -m vqdistill.steps.prepare_data"
        " --images {output.images} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"
