"""Selection of latents, one job for all methods of one VQ-VAE."""

# One rule for each set of methods, since the outputs of a rule can't depend on wildcards.
for methods in sorted({tuple(names) for names in TEACHERS.values()}):

    rule:
        name:
            f"distil_{'_'.join(methods)}"
        input:
            prior=f"{RESULTS}/models/prior-{{source}}/seed-{{seed}}/weights.safetensors",
            codes=f"{RESULTS}/models/vqvae-{{source}}/seed-{{seed}}/codes.npz",
        output:
            latents=[
                f"{RESULTS}/latents/{{source}}/seed-{{seed}}/{method}.npz" for method in methods
            ],
            costs=f"{RESULTS}/metrics/{{source}}/seed-{{seed}}/costs.csv",
            record=f"{RESULTS}/latents/{{source}}/seed-{{seed}}/record.json",
        log:
            f"{RESULTS}/logs/distil/{{source}}/seed-{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/distil/{{source}}/seed-{{seed}}.tsv"
        wildcard_constraints:
            source="|".join(source for source, names in TEACHERS.items() if tuple(names) == methods),
        priority: PRIORITY["distil"]
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=growing(8000),
            runtime=growing(720),
        params:
            settings=lambda wildcards: quoted(
                experiment.selection_settings(config, wildcards.source)
            ),
            experiment=config["experiment"],
            code=lambda wildcards: version_of("distil", *method_modules(wildcards.source)),
        shell:
            "python -m vqdistill.steps.distil"
            " --prior {input.prior} --codes {input.codes}"
            " --latents {output.latents} --costs {output.costs} --record {output.record}"
            " --settings {params.settings:q} --experiment {params.experiment}"
            " --seed {wildcards.seed} --threads {threads} --code-version {params.code}"
            " > {log} 2>&1"
