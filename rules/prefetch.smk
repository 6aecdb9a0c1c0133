"""Prefetch: what a run takes from the network, brought beforehand, for nodes without one."""

# The sections that may name published weights.
NAMING_WEIGHTS = ("caption", "finetune", "classify", "segment", "fidelity", "methods")
CACHES = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")


rule weights:
    """All published weights of the run, in the caches of Hugging Face and of PyTorch."""
    output:
        listing=f"{RUN}/weights/weights.json",
    log:
        f"{RUN}/logs/weights.log",
    benchmark:
        f"{RUN}/benchmarks/weights.tsv"
    # Downloads fail for a while, not for good; what was fetched before is kept.
    retries: 2
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        code=revision("weights"),
        settings=as_json(
            {name: config[name] for name in NAMING_WEIGHTS},
            tokenizer_only=not any(METHODS[name].backbone for name in MADE),
        ),
        # Another cache is filled anew.
        caches=lambda wildcards: [os.environ.get(key, "") for key in CACHES],
    message:
        "Fetching published weights"
    shell:
        "python -m didgen weights --settings {params.settings:q} --out {output.listing:q}"
        " 2>&1 | tee {log:q}"


rule prefetch:
    """Everything that jobs take from a network: data and weights."""
    input:
        weights=rules.weights.output.listing,
        data=rules.fetch.output.listing if config["data"]["source"] == "isic2018" else [],
    output:
        listing=f"{RUN}/prefetch/all.json",
    log:
        f"{RUN}/logs/prefetch.log",
    benchmark:
        f"{RUN}/benchmarks/prefetch.tsv"
    # The other environment, built because a rule needs it; a run with phantoms fetches no data.
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "All that needs a network is here; the nodes can do without: export HF_HUB_OFFLINE=1"
    shell:
        "cp {input.weights:q} {output.listing:q} 2>&1 | tee {log:q}"


# Where Snakemake itself runs, the login node, is where the network is.
localrules:
    weights,
    prefetch,
