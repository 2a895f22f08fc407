"""Distillation: selection of latents, one job for all methods of one VQ-VAE, and deep circuits that
are learned from its samples."""


rule distil:
    input:
        prior=f"{RESULTS}/models/prior-{{teacher}}/seed-{{seed}}/weights.safetensors",
        codes=f"{RESULTS}/models/vqvae-{{teacher}}/seed-{{seed}}/codes.npz",
    output:
        latents=f"{RESULTS}/latents/{{teacher}}/seed-{{seed}}/latents.npz",
        costs=f"{RESULTS}/metrics/{{teacher}}/seed-{{seed}}/costs.csv",
        record=f"{RESULTS}/latents/{{teacher}}/seed-{{seed}}/record.json",
    log:
        f"{RESULTS}/logs/distil/{{teacher}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/distil/{{teacher}}/seed-{{seed}}.tsv"
    priority: PRIORITY["distil"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        **options("distil", experiments.selection_settings),
    shell:
        "python -m vqdistill.steps.distil {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"


rule train_student:
    input:
        unpack(teacher_of),
    output:
        **trained("{student}"),
    log:
        f"{RESULTS}/logs/train_student/{{student}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_student/{{student}}/seed-{{seed}}.tsv"
    priority: PRIORITY["train_student"]
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=1,
    params:
        **options(
            "train_student",
            experiments.student_settings,
            checkpoint=f"{RESULTS}/checkpoints/{{student}}/seed-{{seed}}.safetensors",
        ),
    shell:
        "python -m vqdistill.steps.train_student {params.files} {params.values}"
        " --threads {threads} > {log} 2>&1"
