"""Density and inpainting of all models, by the same code."""


rule evaluate_teacher:
    input:
        images=IMAGES,
        vqvae=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/weights.safetensors",
        prior=f"{RESULTS}/models/prior-{{source}}/seed-{{seed}}/weights.safetensors",
        codes=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/codes.npz",
        latents=latents_of,
        classifier=f"{CLASSIFIER}/weights.safetensors",
    output:
        density=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/density.csv",
        inpainting=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/inpainting.csv",
        pictures=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/pictures.npz",
        teacher=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/teacher.csv",
        bounds=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/bounds.csv",
        codebook=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/codebook.csv",
        record=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/evaluate_teacher/{{source}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_teacher/{{source}}/seed-{{seed}}.tsv"
    priority: PRIORITY["evaluate_teacher"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
        gpu=1,
    params:
        settings=lambda wildcards: quoted(
            experiment.teacher_evaluation_settings(config, wildcards.source)
        ),
        experiment=config["experiment"],
        code=lambda wildcards: version_of("evaluate_teacher"),
    shell:
        "python -m vqdistill.steps.evaluate_teacher"
        " --images {input.images} --vqvae {input.vqvae} --prior {input.prior}"
        " --codes {input.codes} --latents {input.latents} --classifier {input.classifier}"
        " --density {output.density} --inpainting {output.inpainting}"
        " --pictures {output.pictures} --teacher {output.teacher} --bounds {output.bounds}"
        " --codebook {output.codebook} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"


rule evaluate_baseline:
    input:
        images=IMAGES,
        weights=f"{RESULTS}/models/{{model}}/seed-{{seed}}/weights.safetensors",
        classifier=f"{CLASSIFIER}/weights.safetensors",
    output:
        density=f"{RESULTS}/metrics/{{model}}/seed-{{seed}}/density.csv",
        inpainting=f"{RESULTS}/metrics/{{model}}/seed-{{seed}}/inpainting.csv",
        pictures=f"{RESULTS}/metrics/{{model}}/seed-{{seed}}/pictures.npz",
        record=f"{RESULTS}/metrics/{{model}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/evaluate_baseline/{{model}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_baseline/{{model}}/seed-{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
        gpu=1,
    params:
        settings=lambda wildcards: quoted(
            experiment.baseline_evaluation_settings(config, wildcards.model)
        ),
        experiment=config["experiment"],
        code=lambda wildcards: version_of(
            "evaluate_baseline", baseline_module(BASELINES[wildcards.model][0])
        ),
    shell:
        "python -m vqdistill.steps.evaluate_baseline"
        " --images {input.images} --weights {input.weights} --classifier {input.classifier}"
        " --density {output.density} --inpainting {output.inpainting}"
        " --pictures {output.pictures} --record {output.record}"
        " --settings {params.settings:q} --experiment {params.experiment}"
        " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
        " > {log} 2>&1"
