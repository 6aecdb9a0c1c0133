"""Fidelity: are synthetic images close to real ones, various, and of the class asked for?"""


rule fidelity:
    """Distances to real images and among synthetic ones, each with its floor and interval."""
    input:
        synthetic=rules.augment.output.metadata,
        train=rules.data.output.train,
        test=rules.data.output.test,
    output:
        fidelity=f"{RUN}/{{place}}fidelity/fidelity.json",
        measures=f"{RUN}/{{place}}fidelity/measures.csv",
        config=f"{RUN}/{{place}}fidelity/config.json",
    log:
        f"{RUN}/logs/{{place}}fidelity.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}fidelity.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        code=revision("fidelity"),
        settings=as_json(config["fidelity"]),
        out=lambda wildcards, output: folder(output.fidelity),
    message:
        "Comparing synthetic images with real ones"
    shell:
        "python -m didgen fidelity --settings {params.settings:q}"
        " --synthetic {input.synthetic:q} --train {input.train:q} --test {input.test:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"


rule label_judges:
    """The classifiers of real images that judge every set: trained once for the run."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
    output:
        # Beside them one file a fold, of which rare classes may allow fewer than are asked for.
        judges=f"{RUN}/label_judges/judges.json",
        judgements=f"{RUN}/label_judges/judgements.csv",
        config=f"{RUN}/label_judges/config.json",
    log:
        f"{RUN}/logs/label_judges.log",
    benchmark:
        f"{RUN}/benchmarks/label_judges.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 960 * attempt,
    params:
        code=revision("label_judges"),
        settings=as_json(
            {key: config["label_fidelity"][key] for key in ("seed", "folds")},
            classifier=config["classify"],
        ),
        state=f"{RUN}/.state/label_judges",
        out=lambda wildcards, output: folder(output.judges),
    message:
        "Training the judges of classes"
    shell:
        "python -m didgen label_judges --settings {params.settings:q}"
        " --train {input.train:q} --val {input.val:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule label_fidelity:
    """How often classifiers of real images see the class that was asked for."""
    input:
        synthetic=rules.augment.output.metadata,
        judges=rules.label_judges.output.judges,
    output:
        summary=f"{RUN}/{{place}}label_fidelity/label_fidelity.json",
        judgements=f"{RUN}/{{place}}label_fidelity/judgements.csv",
        config=f"{RUN}/{{place}}label_fidelity/config.json",
    log:
        f"{RUN}/logs/{{place}}label_fidelity.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}label_fidelity.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        code=revision("label_fidelity"),
        settings=as_json({"confidence": config["label_fidelity"]["confidence"]}),
        judges=lambda wildcards, input: folder(input.judges),
        out=lambda wildcards, output: folder(output.summary),
    message:
        "Judging the classes of synthetic images"
    shell:
        "python -m didgen label_fidelity --settings {params.settings:q}"
        " --synthetic {input.synthetic:q} --judges {params.judges:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"
