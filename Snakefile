"""A width-scaling study: dataset -> limit -> shards -> tables -> figure. Run it with `make study`."""

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/study.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/kernels.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=jobs.tables(study)),
        expand(
            f"{RESULTS}/figures/{{figure}}.{{suffix}}",
            figure=jobs.figures(study),
            suffix=jobs.FORMATS,
        ),
        f"{RESULTS}/report.html",
    localrule: True
