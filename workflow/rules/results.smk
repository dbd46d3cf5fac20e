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
        "ntksim tables {params.config} --output {params.folder} > {log} 2>&1"


rule figure:
    input:
        f"{RESULTS}/tables/convergence.parquet",
    output:
        expand(f"{RESULTS}/figures/convergence.{{suffix}}", suffix=["svg", "png"]),
    log:
        f"{RESULTS}/logs/figures/convergence.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures/convergence.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Figure: error to the limit against width"
    shell:
        "ntksim figure {input} --output {output} > {log} 2>&1"
