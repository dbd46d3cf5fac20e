"""Tables and figures."""

import os


rule tables:
    input:
        plan.shard_files("initial"),
        plan.shard_files("training"),
        dataset=plan.dataset_files(),
    output:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=jobs.tables(study)),
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
        # a function: jobs of shards, which parse this file too, need no digest
        code=lambda wildcards: digest_of("tables"),
        config=CONFIG_PATH,
        allowance=ALLOWANCE,
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Tables"
    shell:
        "ntksim tables {params.config:q}{params.allowance} --output {params.folder:q} > {log:q} 2>&1"


# One job draws all figures: starting Python and loading Matplotlib takes as long as drawing one.
rule figures:
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=jobs.drawn_tables(study)),
    output:
        [
            report(
                f"{RESULTS}/figures/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure},
            )
            for figure in jobs.figures(study)
        ],
        expand(
            f"{RESULTS}/figures/{{figure}}.{{suffix}}",
            figure=jobs.figures(study),
            suffix=jobs.FORMATS[1:],
        ),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        figures=jobs.figures(study),
        code=lambda wildcards: digest_of("figures"),
        tables=lambda wildcards, input: os.path.dirname(input[0]),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    message:
        "Figures"
    shell:
        "ntksim figures {params.tables:q} {params.figures} --output {params.folder:q} > {log:q} 2>&1"


rule page:
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=jobs.tables(study)),
        expand(
            f"{RESULTS}/figures/{{figure}}.{{suffix}}",
            figure=jobs.figures(study),
            suffix=jobs.FORMATS,
        ),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        results=lambda wildcards, output: os.path.dirname(output[0]),
        code=lambda wildcards: digest_of("page"),
        captions=lambda wildcards: digest_of_files(
            CAPTIONS / f"{figure}.rst" for figure in jobs.figures(study)
        ),
    message:
        "Report"
    shell:
        "ntksim show {params.results:q} --html {output:q} > {log:q} 2>&1"
