"""An experiment in slices: runs of several machines, put together on one of them."""


rule pack:
    """Put all finished runs into one file, slice.zip: all that is small."""
    log:
        f"{RESULTS}/logs/pack.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options("pack", Packing(), results=RESULTS, archive=f"{RESULTS}/slice.zip"),
    shell:
        "python -m vqdistill.steps.pack {params.files} {params.values} 2>&1 | tee {log}"


rule pack_all:
    """The same with large files, such as weights: other machines can go on from them."""
    log:
        f"{RESULTS}/logs/pack_all.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options("pack", Packing(everything=True), results=RESULTS, archive=f"{RESULTS}/slice.zip"),
    shell:
        "python -m vqdistill.steps.pack {params.files} {params.values} 2>&1 | tee {log}"


rule merge:
    """Put the runs of other machines, slices/*.zip, among those of this one."""
    input:
        data=f"{RESULTS}/data/record.json",
        archives=sorted(map(str, Path(RESULTS).glob("slices/*.zip"))),
    log:
        f"{RESULTS}/logs/merge.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options("merge", EXPERIMENT, results=RESULTS),
    shell:
        "python -m vqdistill.steps.merge {params.files} {params.values} 2>&1 | tee {log}"


rule so_far:
    """Tables and figures of the runs that are finished, in so_far/, and which are missing."""
    log:
        f"{RESULTS}/logs/so_far.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        **options(
            "so_far",
            EXPERIMENT,
            results=RESULTS,
            captions=f"{workflow.basedir}/workflow/report",
            tables=f"{RESULTS}/so_far/tables",
            figures=f"{RESULTS}/so_far/figures",
            page=f"{RESULTS}/so_far/figures.md",
            record=f"{RESULTS}/so_far/tables/record.json",
        ),
    shell:
        "python -m vqdistill.steps.so_far {params.files} {params.values} 2>&1 | tee {log}"
