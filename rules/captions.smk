"""Captions: one clinical sentence an image."""

from didgen.settings.captioners import LOCAL_MODELS

CAPTIONER = config["caption"]["captioner"]
OWN_MODEL = CAPTIONER in LOCAL_MODELS


rule caption:
    """One sentence an image, and the attributes it says."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
        test=rules.data.output.test,
    output:
        captions=f"{RUN}/caption/captions.csv",
        statistics=report(
            f"{RUN}/caption/statistics.json",
            caption="../workflow/report/captions.rst",
            category="Data",
            labels={"table": "captions"},
        ),
        measured=f"{RUN}/caption/measured.csv",
        audit=f"{RUN}/caption/audit.json",
        config=f"{RUN}/caption/config.json",
    log:
        f"{RUN}/logs/caption.log",
    benchmark:
        f"{RUN}/benchmarks/caption.tsv"
    conda:
        "../envs/generation.yaml" if CAPTIONER == "measure" else "../envs/llm.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * config["caption"]["gpus"] if OWN_MODEL else 0,
        mem_mb=lambda wildcards, attempt: (32000 if OWN_MODEL else 8000) * attempt,
        runtime=lambda wildcards, attempt: (240 if CAPTIONER == "measure" else 1440) * attempt,
    params:
        code=revision("caption"),
        settings=as_json(
            config["caption"], **{key: config["finetune"][key] for key in ("backbone", "revision")}
        ),
        out=lambda wildcards, output: folder(output.captions),
        # Snakemake deletes declared outputs before a rerun; a model's answers are kept apart.
        state=f"{RUN}/.state/caption",
    message:
        "Writing captions"
    shell:
        "python -m didgen caption --settings {params.settings:q}"
        " --train {input.train:q} --val {input.val:q} --test {input.test:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"
