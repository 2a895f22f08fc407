"""Density and inpainting of all models, by the same code."""


rule evaluate_teacher:
    input:
        images=IMAGES,
        vqvae=f"{RESULTS}/models/vqvae-{{teacher}}/seed-{{seed}}/weights.safetensors",
        prior=f"{RESULTS}/models/prior-{{teacher}}/seed-{{seed}}/weights.safetensors",
        codes=f"{RESULTS}/models/vqvae-{{teacher}}/seed-{{seed}}/codes.npz",
        latents=f"{RESULTS}/latents/{{teacher}}/seed-{{seed}}/latents.npz",
        students=weights_of_students,
        classifier=f"{CLASSIFIER}/weights.safetensors",
    output:
        **metrics("{teacher}", *(f"{table}.csv" for table in names.OF_TEACHERS if table != "costs")),
    log:
        f"{RESULTS}/logs/evaluate_teacher/{{teacher}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_teacher/{{teacher}}/seed-{{seed}}.tsv"
    priority: PRIORITY["evaluate_teacher"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
        gpu=1,
    params:
        **options(
            "evaluate_teacher",
            experiments.teacher_evaluation_settings,
            checkpoint=f"{RESULTS}/checkpoints/evaluation-{{teacher}}/seed-{{seed}}.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.evaluate_teacher {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule evaluate_baseline:
    input:
        images=IMAGES,
        weights=f"{RESULTS}/models/{{model}}/seed-{{seed}}/weights.safetensors",
        classifier=f"{CLASSIFIER}/weights.safetensors",
    output:
        **metrics("{model}"),
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
        **options("evaluate_baseline", experiments.baseline_evaluation_settings),
    shell:
        "python -m vqdistill.steps.evaluate_baseline {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"
