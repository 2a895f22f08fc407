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
        **options("prepare_data", EXPERIMENT.data),
    shell:
        "python -m vqdistill.steps.prepare_data {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"
