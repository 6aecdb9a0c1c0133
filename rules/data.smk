"""Data: from a source to square images, masks and one manifest a split."""


rule fetch:
    """The archives of ISIC 2018, downloaded where they are missing, and verified."""
    input:
        mirror_files,
    output:
        listing=f"{RUN}/fetch/archives.json",
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
        settings=as_json({key: config["data"][key] for key in ("mirror", "archives", "splits")}),
    message:
        "Fetching and verifying the archives of ISIC 2018"
    shell:
        "python -m didgen fetch --settings {params.settings:q}"
        " --offline {resources.offline} --workers {threads}"
        " --out {output.listing:q} 2>&1 | tee {log:q}"


rule data:
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
        f"{RUN}/logs/data.log",
    benchmark:
        f"{RUN}/benchmarks/data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("data"),
        settings=as_json(preparation()),
        seed=config["seed"],
        files=lambda wildcards: own_files(),
        listing=lambda wildcards, input: flag("--listing", input.get("listing")),
        out=lambda wildcards, output: folder(output.train),
    message:
        "Preparing images, masks and splits"
    shell:
        "python -m didgen data --settings {params.settings:q} --seed {params.seed:q}"
        " {params.listing:q} --workers {threads} --out {params.out:q} 2>&1 | tee {log:q}"


rule external_data:
    """The external test sets, apart from what networks learn from."""
    input:
        unpack(source_files),
        train=rules.data.output.train,
        val=rules.data.output.val,
        sets=foreign_sets(),
    output:
        manifests=expand(f"{RUN}/external_data/{{name}}/test.csv", name=EXTERNAL),
        summary=f"{RUN}/external_data/summary.json",
        config=f"{RUN}/external_data/config.json",
    log:
        f"{RUN}/logs/external_data.log",
    benchmark:
        f"{RUN}/benchmarks/external_data.tsv"
    conda:
        "../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("external_data"),
        settings=as_json(preparation(), external=config["data"]["external"]),
        seed=config["seed"],
        files=lambda wildcards: [own_files(), *external_files()],
        listing=lambda wildcards, input: flag("--listing", input.get("listing")),
        sets=lambda wildcards, input: flag("--sets", input.sets),
        out=lambda wildcards, output: folder(output.summary),
    message:
        "Preparing the external test sets"
    shell:
        "python -m didgen external_data --settings {params.settings:q} --seed {params.seed:q}"
        " {params.listing:q} {params.sets:q} --train {input.train:q} --val {input.val:q}"
        " --workers {threads} --out {params.out:q} 2>&1 | tee {log:q}"
