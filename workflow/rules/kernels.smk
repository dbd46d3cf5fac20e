"""Data, limits, and the shards of kernels and training."""


rule dataset:
    input:
        study.dataset.files,
    output:
        f"{RESULTS}/dataset.npz",
    log:
        f"{RESULTS}/logs/dataset.log",
    benchmark:
        f"{RESULTS}/benchmarks/dataset.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        # a function, since Snakemake takes braces in text for wildcards
        options=lambda wildcards: jobs.arguments(study.dataset),
    message:
        "Data set {params.options}"
    shell:
        "ntksim dataset {params.options} --output {output:q} > {log:q} 2>&1"


rule limit:
    input:
        dataset=f"{RESULTS}/dataset.npz",
    output:
        f"{RESULTS}/limit/{{cell}}.npz",
    log:
        f"{RESULTS}/logs/limit/{{cell}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/limit/{{cell}}.jsonl"
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: megabytes(cost_of_limit(wildcards), attempt),
        runtime=lambda wildcards, attempt: minutes(cost_of_limit(wildcards), attempt),
    params:
        network=lambda wildcards: jobs.arguments(
            study.networks[width_of_limit(wildcards.cell)[0]]
        ),
        width=lambda wildcards: width_of_limit(wildcards.cell)[1],
    message:
        "Infinite-width kernels of {wildcards.cell}"
    shell:
        "ntksim limit {params.network} --width {params.width} --dataset {input.dataset:q}"
        " --threads {threads} --output {output:q} > {log:q} 2>&1"


rule initial_shard:
    input:
        dataset=f"{RESULTS}/dataset.npz",
        limit=limit_of,
    output:
        f"{RESULTS}/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.parquet",
    log:
        f"{RESULTS}/logs/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.jsonl"
    conda:
        "../envs/ntksim.yaml"
    threads: shard_threads("initial")
    resources:
        mem_mb=shard_memory("initial"),
        runtime=shard_runtime("initial"),
        gpu=GPUS,
        device=study.device,
    params:
        network=network_options,
        precision=study.precision,
        stop=lambda wildcards: int(wildcards.last) + 1,
    message:
        "Kernels at initialisation: {wildcards.network}, width {wildcards.width}, seeds {wildcards.first} to {wildcards.last}"
    shell:
        "ntksim initial {params.network} --width {wildcards.width} --seeds {wildcards.first}:{params.stop}"
        " --precision {params.precision} --dataset {input.dataset:q} --limit {input.limit:q}"
        " --threads {threads} --device {resources.device} --output {output:q} > {log:q} 2>&1"


rule training_shard:
    input:
        dataset=f"{RESULTS}/dataset.npz",
        limit=limit_of,
    output:
        **training_files(),
    log:
        f"{RESULTS}/logs/training/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/training/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.jsonl"
    conda:
        "../envs/ntksim.yaml"
    threads: shard_threads("training")
    resources:
        mem_mb=shard_memory("training"),
        runtime=shard_runtime("training"),
        gpu=GPUS,
        device=study.device,
    params:
        network=network_options,
        precision=study.precision,
        stop=lambda wildcards: int(wildcards.last) + 1,
        schedule=jobs.training_arguments(study),
    message:
        "Training: {wildcards.network}, width {wildcards.width}, seeds {wildcards.first} to {wildcards.last}"
    shell:
        "ntksim training {params.network} --width {wildcards.width} --seeds {wildcards.first}:{params.stop}"
        " {params.schedule} --precision {params.precision} --dataset {input.dataset:q} --limit {input.limit:q}"
        " --threads {threads} --device {resources.device}"
        + KEEP_KERNELS
        + " --output {output.shard:q} > {log:q} 2>&1"
