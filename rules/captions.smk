"""Captions: one clinical sentence an image."""


rule caption:
    """One sentence an image, and the attributes it says."""
    input:
        train=rules.prepare.output.train,
        val=rules.prepare.output.val,
        test=rules.prepare.output.test,
    output:
        captions=f"{RUN}/captions/captions.csv",
        statistics=f"{RUN}/captions/statistics.json",
        config=f"{RUN}/captions/config.json",
    log:
        f"{RUN}/logs/caption.log",
    benchmark:
        f"{RUN}/benchmarks/caption.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        settings=section("caption"),
        backbone=config["finetune"]["backbone"],
        revision=flag("--revision", config["finetune"]["revision"]),
        out=lambda wildcards, output: folder(output.captions),
    message:
        "Writing captions"
    shell:
        "python -m didgen caption --settings {params.settings:q} --backbone {params.backbone:q}"
        " {params.revision}"
        " --train {input.train} --val {input.val} --test {input.test}"
        " --out {params.out} 2>&1 | tee {log}"
