"""Data, limits, and the shards of kernels and training."""


rule dataset:
    input:
        study.dataset.files,
    output:
        f"{RESULTS}/dataset{{data}}.npz",
    log:
        f"{RESULTS}/logs/dataset{{data}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/dataset{{data}}.jsonl"
    localrule: True
    conda:
        "../envs/ntksim.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        # words are functions, since Snakemake takes braces in text for wildcards
        dataset=plan.dataset,
    message:
        "Data set"
    shell:
        "ntksim dataset --dataset {params.dataset} --output {output:q} > {log:q} 2>&1"


rule limit:
    input:
        dataset=plan.dataset_of_limit,
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
        mem_mb=plan.memory_of_limit,
        runtime=plan.runtime_of_limit,
    params:
        network=plan.network_of_limit,
        width=plan.width_of_limit,
    message:
        "Infinite-width kernels of {wildcards.cell}"
    shell:
        "ntksim limit --network {params.network} --width {params.width} --dataset {input.dataset:q}"
        " --threads {threads} --output {output:q} > {log:q} 2>&1"


rule initial_shard:
    input:
        dataset=plan.dataset_file,
        limit=plan.limit_file,
    output:
        f"{RESULTS}/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.parquet",
    log:
        f"{RESULTS}/logs/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/initial/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.jsonl"
    conda:
        "../envs/ntksim.yaml"
    threads: plan.threads("initial")
    resources:
        mem_mb=plan.memory("initial"),
        runtime=plan.runtime("initial"),
        gpu=GPUS,
        device=study.device,
    params:
        network=plan.network,
        precision=study.precision,
        sampling=study.initial.sampling,
        stop=plan.stop,
    message:
        "Kernels at initialisation: {wildcards.network}, width {wildcards.width}, seeds {wildcards.first} to {wildcards.last}"
    shell:
        "ntksim initial --network {params.network} --width {wildcards.width} --seeds {wildcards.first}:{params.stop}"
        " --precision {params.precision} --sampling {params.sampling} --dataset {input.dataset:q} --limit {input.limit:q}"
        " --threads {threads} --device {resources.device}"
        + FIRST_STEP
        + " --output {output:q} > {log:q} 2>&1"


rule training_shard:
    input:
        dataset=plan.dataset_file,
        limit=plan.limit_file,
    output:
        **plan.training_files(),
    log:
        f"{RESULTS}/logs/training/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/training/{{network}}.width-{{width}}.seeds-{{first}}-{{last}}.jsonl"
    # before jobs at initialisation, which are shorter: lest a long one is left alone at the end
    priority: 1
    conda:
        "../envs/ntksim.yaml"
    threads: plan.threads("training")
    resources:
        mem_mb=plan.memory("training"),
        runtime=plan.runtime("training"),
        gpu=GPUS,
        device=study.device,
    params:
        network=plan.network,
        name=plan.name,
        precision=study.precision,
        stop=plan.stop,
        schedule=plan.schedule,
    message:
        "Training: {wildcards.network}, width {wildcards.width}, seeds {wildcards.first} to {wildcards.last}"
    shell:
        "ntksim training --network {params.network} --width {wildcards.width} --seeds {wildcards.first}:{params.stop}"
        " --schedule {params.schedule} --precision {params.precision} --dataset {input.dataset:q} --limit {input.limit:q}"
        " --threads {threads} --device {resources.device}"
        + KEEP_KERNELS
        + " --output {output.shard:q} > {log:q} 2>&1"
