"""Generation: fine-tune the backbone, synthesize images and pairs, look at its attention."""


wildcard_constraints:
    place=f"({'|'.join(EVERY_PLACE)})",
    generator=f"({'|'.join(GENERATORS)})",
    method="|".join(RIVALS) or "none",


# Shards take whole batches, so their number changes nothing but the time.
scattergather:
    images=config["shards"],
    pairs=config["shards"],


rule finetune:
    """The backbone, fine-tuned with the region-aware attention loss."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
        captions=rules.caption.output.captions,
    output:
        backbone=f"{RUN}/{{generator}}finetune/model_index.json",
        training=report(
            f"{RUN}/{{generator}}finetune/training.csv",
            caption="../workflow/report/training.rst",
            category="Fine-tuning",
            labels={"table": "losses of each step"},
        ),
        config=f"{RUN}/{{generator}}finetune/config.json",
    log:
        f"{RUN}/logs/{{generator}}finetune.log",
    benchmark:
        f"{RUN}/benchmarks/{{generator}}finetune.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * config["finetune"]["processes"],
        mem_mb=lambda wildcards, attempt: 24000 * attempt,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        code=revision("finetune"),
        settings=as_json(config["finetune"]),
        seed=lambda wildcards: seed_of(wildcards.generator),
        out=lambda wildcards, output: folder(output.backbone),
        # Snakemake deletes declared outputs before a rerun; what a training resumes from lies apart.
        state=f"{RUN}/.state/{{generator}}finetune",
    message:
        "Fine-tuning the backbone"
    shell:
        "python -m didgen finetune --settings {params.settings:q} --seed {params.seed:q}"
        " --train {input.train:q} --val {input.val:q} --captions {input.captions:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule train_job:
    """A method beside the one that `finetune` trains."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
        captions=rules.caption.output.captions,
        backbone=lambda wildcards: base_of(wildcards.method, wildcards.generator),
    output:
        config=f"{RUN}/{{generator}}methods/{{method}}/model/config.json",
    log:
        f"{RUN}/logs/{{generator}}methods/{{method}}/train.log",
    benchmark:
        f"{RUN}/benchmarks/{{generator}}methods/{{method}}/train.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * METHODS[wildcards.method].network,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        code=revision("train"),
        settings=as_json(
            {"finetune": config["finetune"]},
            method=lambda wildcards: wildcards.method,
            own=lambda wildcards: RIVALS[wildcards.method],
        ),
        seed=lambda wildcards: seed_of(wildcards.generator),
        backbone=lambda wildcards, input: base_flag(input.backbone),
        out=lambda wildcards, output: folder(output.config),
        # One for each method: they lock it.
        state=lambda wildcards: f"{RUN}/.state/{wildcards.generator}train/{wildcards.method}",
    message:
        "Training the method {wildcards.method}"
    shell:
        "python -m didgen train --settings {params.settings:q} --seed {params.seed:q}"
        " --train {input.train:q} --val {input.val:q} --captions {input.captions:q}"
        " {params.backbone:q} --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule prompts:
    """New prompts for sampling, by the language model that wrote the captions."""
    input:
        train=rules.data.output.train,
        captions=rules.caption.output.captions,
        captioner=rules.caption.output.config,
        backbone=backbone_of(),
    output:
        prompts=f"{RUN}/prompts/prompts.csv",
        statistics=f"{RUN}/prompts/statistics.json",
        config=f"{RUN}/prompts/config.json",
    log:
        f"{RUN}/logs/prompts.log",
    benchmark:
        f"{RUN}/benchmarks/prompts.tsv"
    conda:
        "../envs/llm.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * config["caption"]["gpus"] if OWN_MODEL else 0,
        mem_mb=lambda wildcards, attempt: (32000 if OWN_MODEL else 8000) * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        code=revision("prompts"),
        settings=as_json(
            config["prompts"], **{key: config["images"][key] for key in ("per_class", "classes")}
        ),
        seed=config["seed"],
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.prompts),
        # Snakemake deletes declared outputs before a rerun; the model's answers lie apart.
        state=f"{RUN}/.state/caption",
    message:
        "Writing new prompts"
    shell:
        "python -m didgen prompts --settings {params.settings:q} --seed {params.seed:q}"
        " --train {input.train:q} --captions {input.captions:q} --captioner {input.captioner:q}"
        " --backbone {params.backbone:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule images_job:
    """One shard of the images made from text alone."""
    input:
        train=rules.data.output.train,
        captions=rules.caption.output.captions,
        model=model_at,
        backbone=lambda wildcards: base_of(method_at(wildcards), generator_of(wildcards.place)),
        prompts=lambda wildcards: (
            rules.prompts.output.prompts
            if "text" in facts_at(wildcards).reads
            and (config["images"] | (own_at(wildcards) or {}))["prompts"] == "llm"
            else []
        ),
    output:
        metadata=f"{RUN}/{{place}}images/{{scatteritem}}/metadata.csv",
        config=f"{RUN}/{{place}}images/{{scatteritem}}/config.json",
    log:
        f"{RUN}/logs/{{place}}images/{{scatteritem}}.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}images/{{scatteritem}}.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * facts_at(wildcards).network,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        code=revision("images"),
        settings=as_json(
            config["images"],
            classes=config["images"]["classes"] or config["finetune"]["classes"],
            method=method_at,
            own=own_at,
        ),
        seed=lambda wildcards: seed_of(generator_of(wildcards.place)),
        model=lambda wildcards, input: folder(input.model),
        out=lambda wildcards, output: folder(output.metadata),
        shard=lambda wildcards: wildcards.scatteritem.replace("-of-", "/"),
        backbone=lambda wildcards, input: base_flag(input.backbone),
        prompts=lambda wildcards, input: flag("--prompts-file", input.prompts),
    message:
        "Synthesizing images, shard {params.shard}"
    shell:
        "python -m didgen images --settings {params.settings:q} --seed {params.seed:q}"
        " --train {input.train:q} --captions {input.captions:q} --model {params.model:q}"
        " --shard {params.shard:q} {params.backbone:q} {params.prompts:q} --workers {threads}"
        " --memory-mb {resources.mem_mb} --out {params.out:q} 2>&1 | tee {log:q}"


rule pairs_job:
    """One shard of the lesion-mask pairs."""
    input:
        train=rules.data.output.train,
        captions=rules.caption.output.captions,
        model=model_at,
        backbone=lambda wildcards: base_of(method_at(wildcards), generator_of(wildcards.place)),
        generated=generated_for,
    output:
        metadata=f"{RUN}/{{place}}pairs/{{scatteritem}}/metadata.csv",
        config=f"{RUN}/{{place}}pairs/{{scatteritem}}/config.json",
    log:
        f"{RUN}/logs/{{place}}pairs/{{scatteritem}}.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}pairs/{{scatteritem}}.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * facts_at(wildcards).network,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 960 * attempt,
    params:
        code=revision("pairs"),
        settings=as_json(
            config["pairs"],
            classes=config["finetune"]["classes"],
            method=method_at,
            own=own_at,
        ),
        seed=lambda wildcards: seed_of(generator_of(wildcards.place)),
        model=lambda wildcards, input: folder(input.model),
        out=lambda wildcards, output: folder(output.metadata),
        shard=lambda wildcards: wildcards.scatteritem.replace("-of-", "/"),
        backbone=lambda wildcards, input: base_flag(input.backbone),
        generated=lambda wildcards, input: flag(
            "--generated", [folder(path) for path in input.generated]
        ),
    message:
        "Synthesizing lesion-mask pairs, shard {params.shard}"
    shell:
        "python -m didgen pairs --settings {params.settings:q} --seed {params.seed:q}"
        " --train {input.train:q} --captions {input.captions:q} --model {params.model:q}"
        " --shard {params.shard:q} {params.backbone:q} {params.generated:q} --workers {threads}"
        " --memory-mb {resources.mem_mb} --out {params.out:q} 2>&1 | tee {log:q}"


rule filter:
    """Which pairs are kept, and which are not and why."""
    input:
        pairs=gather.pairs(f"{RUN}/{{place}}pairs/{{scatteritem}}/metadata.csv", allow_missing=True),
        # Trained on real images alone: it does not wait for the pairs.
        segmenter=f"{RUN}/segment/original/seed{SEEDS[0]}/segmenter.safetensors",
    output:
        scores=f"{RUN}/{{place}}filter/scores.csv",
        kept=f"{RUN}/{{place}}filter/kept.csv",
        # Not rejected.csv: it says why, where a job fails because nothing was kept.
        summary=report(
            f"{RUN}/{{place}}filter/summary.json",
            caption="../workflow/report/filter.rst",
            category="Pairs",
            labels={"table": "kept and rejected"},
        ),
        curve=f"{RUN}/{{place}}filter/curve.json",
        config=f"{RUN}/{{place}}filter/config.json",
    log:
        f"{RUN}/logs/{{place}}filter.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}filter.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("filter"),
        settings=as_json(config["filter"]),
        pairs=lambda wildcards, input: [folder(path) for path in input.pairs],
        out=lambda wildcards, output: folder(output.scores),
    message:
        "Keeping and rejecting lesion-mask pairs"
    shell:
        "python -m didgen filter --settings {params.settings:q}"
        " --pairs {params.pairs:q} --segmenter {input.segmenter:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"


rule augment:
    """The augmented data set: synthetic images and pairs in one image folder."""
    input:
        images=made_at(
            "images",
            gather.images(
                f"{RUN}/{{place}}images/{{scatteritem}}/metadata.csv", allow_missing=True
            ),
        ),
        pairs=made_at(
            "pairs",
            gather.pairs(f"{RUN}/{{place}}pairs/{{scatteritem}}/metadata.csv", allow_missing=True),
        ),
        scores=made_at("pairs", rules.filter.output.scores),
    output:
        metadata=f"{RUN}/{{place}}augment/metadata.csv",
        config=f"{RUN}/{{place}}augment/config.json",
    log:
        f"{RUN}/logs/{{place}}augment.log",
    benchmark:
        f"{RUN}/benchmarks/{{place}}augment.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("augment"),
        settings=as_json(config["augment"]),
        images=lambda wildcards, input: flag("--images", [folder(path) for path in input.images]),
        pairs=lambda wildcards, input: flag("--pairs", [folder(path) for path in input.pairs]),
        scores=lambda wildcards, input: flag("--scores", input.scores),
        out=lambda wildcards, output: folder(output.metadata),
    message:
        "Joining the synthetic images and pairs"
    shell:
        "python -m didgen augment --settings {params.settings:q}"
        " {params.images:q} {params.pairs:q} {params.scores:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"


rule maps:
    """Attention maps of the lesion and skin tokens on held-out images."""
    input:
        manifest=rules.data.output.test,
        captions=rules.caption.output.captions,
        backbone=backbone_of(),
    output:
        maps=report(
            f"{RUN}/maps/maps.json",
            caption="../workflow/report/maps.rst",
            category="Attention",
            labels={"table": "maps and masks"},
        ),
        config=f"{RUN}/maps/config.json",
    log:
        f"{RUN}/logs/maps.log",
    benchmark:
        f"{RUN}/benchmarks/maps.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        code=revision("maps"),
        settings=as_json(config["maps"], pairs=annotation()),
        seed=config["seed"],
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.maps),
    message:
        "Comparing attention maps with the masks of held-out images"
    shell:
        "python -m didgen maps --settings {params.settings:q} --seed {params.seed:q}"
        " --manifest {input.manifest:q} --captions {input.captions:q} --backbone {params.backbone:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"
