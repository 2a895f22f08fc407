"""Trainings: VQ-VAEs, their priors, the baselines, the classifier that judges completions.

Checkpoints are no outputs: Snakemake would delete them when an interrupted job starts again.
"""


rule train_vqvae:
    input:
        images=IMAGES,
    output:
        **trained("vqvae-{teacher}", "codes.npz"),
    log:
        f"{RESULTS}/logs/train_vqvae/{{teacher}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_vqvae/{{teacher}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_vqvae"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=1,
    params:
        **options(
            "train_vqvae",
            experiments.vqvae_settings,
            checkpoint=f"{RESULTS}/checkpoints/vqvae-{{teacher}}/seed-{{seed}}.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.train_vqvae {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule train_prior:
    input:
        images=IMAGES,
        codes=f"{RESULTS}/models/vqvae-{{teacher}}/seed-{{seed}}/codes.npz",
    output:
        **trained("prior-{teacher}"),
    log:
        f"{RESULTS}/logs/train_prior/{{teacher}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_prior/{{teacher}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_prior"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=1,
    params:
        **options(
            "train_prior",
            experiments.prior_settings,
            checkpoint=f"{RESULTS}/checkpoints/prior-{{teacher}}/seed-{{seed}}.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.train_prior {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule train_baseline:
    input:
        images=IMAGES,
    output:
        **trained("{model}"),
    log:
        f"{RESULTS}/logs/train_baseline/{{model}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_baseline/{{model}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_baseline"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: attempt * (10000 if wildcards.model == "cm" else 6000),
        runtime=growing(1440),
        gpu=1,
    params:
        **options(
            "train_baseline",
            experiments.baseline_settings,
            checkpoint=f"{RESULTS}/checkpoints/{{model}}/seed-{{seed}}.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.train_baseline {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule train_classifier:
    input:
        images=IMAGES,
    output:
        **trained("classifier", seed=0),
    log:
        f"{RESULTS}/logs/train_classifier.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_classifier.tsv"
    priority: PRIORITY["train_classifier"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
        gpu=1,
    params:
        **options(
            "train_classifier",
            EXPERIMENT.classifier,
            checkpoint=f"{RESULTS}/checkpoints/classifier.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.train_classifier {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"
