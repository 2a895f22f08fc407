"""Trainings: VQ-VAEs, their priors, the baselines, the classifier that judges completions.

Checkpoints are no outputs: Snakemake would delete them when an interrupted job starts again.
"""


rule train_vqvae:
    input:
        images=IMAGES,
    output:
        weights=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/weights.safetensors",
        codes=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/codes.npz",
        history=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/history.csv",
        record=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/train_vqvae/{{source}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_vqvae/{{source}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_vqvae"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=1,
    params:
        settings=lambda wildcards: quoted(experiment.vqvae_settings(config, wildcards.source)),
        checkpoint=f"{RESULTS}/checkpoints/vqvae-{{source}}/seed-{{seed}}.safetensors",
        experiment=config["experiment"],
        code=lambda wildcards: version_of("train_vqvae"),
    shell:
        "python -m vqdistill.steps.train_vqvae"
        " --images {input.images} --checkpoint {params.checkpoint}"
        " --weights {output.weights} --codes {output.codes}"
        " --history {output.history} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"


rule train_prior:
    input:
        images=IMAGES,
        codes=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/codes.npz",
    output:
        weights=f"{RESULTS}/models/prior-{{source}}/seed-{{seed}}/weights.safetensors",
        history=f"{RESULTS}/models/prior-{{source}}/seed-{{seed}}/history.csv",
        record=f"{RESULTS}/models/prior-{{source}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/train_prior/{{source}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_prior/{{source}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_prior"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=1,
    params:
        settings=lambda wildcards: quoted(experiment.prior_settings(config, wildcards.source)),
        checkpoint=f"{RESULTS}/checkpoints/prior-{{source}}/seed-{{seed}}.safetensors",
        experiment=config["experiment"],
        code=lambda wildcards: version_of("train_prior"),
    shell:
        "python -m vqdistill.steps.train_prior"
        " --images {input.images} --codes {input.codes} --checkpoint {params.checkpoint}"
        " --weights {output.weights} --history {output.history} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"


rule train_baseline:
    input:
        images=IMAGES,
    output:
        weights=f"{RESULTS}/models/{{model}}/seed-{{seed}}/weights.safetensors",
        history=f"{RESULTS}/models/{{model}}/seed-{{seed}}/history.csv",
        record=f"{RESULTS}/models/{{model}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/train_baseline/{{model}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_baseline/{{model}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_baseline"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(1440),
        gpu=1,
    params:
        settings=lambda wildcards: quoted(experiment.baseline_settings(config, wildcards.model)),
        checkpoint=f"{RESULTS}/checkpoints/{{model}}/seed-{{seed}}.safetensors",
        experiment=config["experiment"],
        code=lambda wildcards: version_of(
            "train_baseline", baseline_module(BASELINES[wildcards.model][0])
        ),
    shell:
        "python -m vqdistill.steps.train_baseline"
        " --images {input.images} --checkpoint {params.checkpoint}"
        " --weights {output.weights} --history {output.history} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"


rule train_classifier:
    input:
        images=IMAGES,
    output:
        weights=f"{CLASSIFIER}/weights.safetensors",
        history=f"{CLASSIFIER}/history.csv",
        record=f"{CLASSIFIER}/record.json",
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
        settings=quoted(experiment.classifier_settings(config)),
        checkpoint=f"{RESULTS}/checkpoints/classifier.safetensors",
        experiment=config["experiment"],
        code=lambda wildcards: version_of("train_classifier"),
    shell:
        "python -m vqdistill.steps.train_classifier"
        " --images {input.images} --checkpoint {params.checkpoint}"
        " --weights {output.weights} --history {output.history} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed 0 --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"
