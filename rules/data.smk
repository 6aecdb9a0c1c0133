"""Data: from a source to square images, masks and one manifest a split."""


rule prepare:
    """Images, masks and manifests, split by patient and lesion."""
    input:
        source_files,
    output:
        train=f"{RUN}/data/train.csv",
        val=f"{RUN}/data/val.csv",
        test=f"{RUN}/data/test.csv",
        summary=f"{RUN}/data/summary.json",
        config=f"{RUN}/data/config.json",
    log:
        f"{RUN}/logs/prepare.log",
    benchmark:
        f"{RUN}/benchmarks/prepare.tsv"
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=section("data"),
        seed=config["seed"],
        out=lambda wildcards, output: folder(output.train),
    message:
        "Preparing images, masks and splits"
    shell:
        "python -m didgen prepare --settings {params.settings:q} --seed {params.seed}"
        " --out {params.out} 2>&1 | tee {log}"
