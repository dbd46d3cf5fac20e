"""Tables and figures."""

import os


rule tables:
    input:
        shard_files("initial"),
        shard_files("training"),
        dataset=f"{RESULTS}/dataset.npz",
    output:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=plan.tables(study)),
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        science=study.science_hash(),
        config=CONFIG_PATH,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Tables in {params.folder}"
    shell:
        "ntksim tables {params.config:q} --output {params.folder:q} > {log:q} 2>&1"


rule figure:
    input:
        lambda wildcards: [
            f"{RESULTS}/tables/{table}.parquet"
            for table in plan.FIGURES[wildcards.figure]
        ],
    output:
        multiext(f"{RESULTS}/figures/{{figure}}", ".svg", ".png"),
    log:
        f"{RESULTS}/logs/figures/{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/{{figure}}.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        looks=plan.looks(),
    message:
        "Figure {wildcards.figure}"
    shell:
        "ntksim figure {wildcards.figure} {input:q} --output {output:q} > {log:q} 2>&1"
