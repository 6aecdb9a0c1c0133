"""Data: from a source to square images, masks and one manifest a split."""


rule fetch:
    """The archives of ISIC 2018, downloaded where they are missing, and verified."""
    input:
        mirror_files,
    output:
        listing=f"{RUN}/data/archives.json",
    log:
        f"{RUN}/logs/fetch.log",
    benchmark:
        f"{RUN}/benchmarks/fetch.tsv"
    # Downloads fail for a while, not for good; what was fetched before is kept.
    retries: 2
    conda:
        "../envs/data.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
        # No parameter: going offline changes no archive, and must rerun nothing.
        offline=int(config["data"]["offline"]),
    params:
        code=revision("fetch"),
        mirror=flag("--mirror", config["data"]["mirror"] and shlex.quote(config["data"]["mirror"])),
        archives=config["data"]["archives"],
        splits=config["data"]["splits"],
    message:
        "Fetching and verifying the archives of ISIC 2018"
    shell:
        "python -m didgen fetch {params.mirror} --archives {params.archives:q}"
        " --splits {params.splits} --offline {resources.offline} --workers {threads}"
        " --out {output.listing} 2>&1 | tee {log}"


rule prepare:
    """Images, masks and manifests, split by patient and lesion."""
    input:
        unpack(source_files),
    output:
        train=f"{RUN}/data/train.csv",
        val=f"{RUN}/data/val.csv",
        test=f"{RUN}/data/test.csv",
        summary=report(
            f"{RUN}/data/summary.json",
            caption="../workflow/report/data.rst",
            category="Data",
            labels={"table": "counts"},
        ),
        leaks=report(
            f"{RUN}/data/leaks.json",
            caption="../workflow/report/leaks.rst",
            category="Data",
            labels={"table": "what splits share"},
        ),
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
        code=revision("prepare"),
        settings=preparing(),
        seed=config["seed"],
        files=lambda wildcards: own_files(),
        listing=lambda wildcards, input: flag("--listing", input.get("listing")),
        out=lambda wildcards, output: folder(output.train),
    message:
        "Preparing images, masks and splits"
    shell:
        "python -m didgen prepare --settings {params.settings:q} --seed {params.seed}"
        " {params.listing} --workers {threads} --out {params.out} 2>&1 | tee {log}"
