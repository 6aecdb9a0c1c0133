"""Generation: fine-tune the backbone, synthesize images and pairs, look at its attention."""


# Shards take whole batches, so their number changes nothing but the time.
scattergather:
    images=config["shards"],
    pairs=config["shards"],


rule finetune:
    """The backbone, fine-tuned with the region-aware attention loss."""
    input:
        train=rules.prepare.output.train,
        val=rules.prepare.output.val,
        captions=rules.caption.output.captions,
    output:
        backbone=f"{RUN}/backbone/model_index.json",
        training=report(
            f"{RUN}/backbone/training.csv",
            caption="../workflow/report/training.rst",
            category="Fine-tuning",
            labels={"table": "losses of each step"},
        ),
        config=f"{RUN}/backbone/config.json",
    log:
        f"{RUN}/logs/finetune.log",
    benchmark:
        f"{RUN}/benchmarks/finetune.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=lambda wildcards: gpus(wildcards) * config["finetune"]["processes"],
        mem_mb=lambda wildcards, attempt: 24000 * attempt,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        code=revision("finetune"),
        settings=section("finetune"),
        seed=config["seed"],
        out=lambda wildcards, output: folder(output.backbone),
        # Snakemake deletes declared outputs before a rerun; what a training resumes from lies apart.
        state=f"{RUN}/.state/finetune",
    message:
        "Fine-tuning the backbone"
    shell:
        "python -m didgen finetune --settings {params.settings:q} --seed {params.seed}"
        " --train {input.train} --val {input.val} --captions {input.captions}"
        " --state {params.state} --out {params.out} 2>&1 | tee {log}"


rule prompts:
    """New prompts for sampling, by the language model that wrote the captions."""
    input:
        train=rules.prepare.output.train,
        captions=rules.caption.output.captions,
        captioner=rules.caption.output.config,
        backbone=rules.finetune.output.backbone,
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
        settings=section("prompts"),
        seed=config["seed"],
        per_class=config["images"]["per_class"],
        classes=flag("--classes", config["images"]["classes"]),
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.prompts),
        # Snakemake deletes declared outputs before a rerun; the model's answers lie apart.
        state=f"{RUN}/.state/caption",
    message:
        "Writing new prompts"
    shell:
        "python -m didgen prompts --settings {params.settings:q} --seed {params.seed}"
        " --train {input.train} --captions {input.captions} --captioner {input.captioner}"
        " --backbone {params.backbone} --per-class {params.per_class} {params.classes}"
        " --state {params.state} --out {params.out} 2>&1 | tee {log}"


rule image_shard:
    """One shard of the images made from text alone."""
    input:
        train=rules.prepare.output.train,
        captions=rules.caption.output.captions,
        backbone=rules.finetune.output.backbone,
        prompts=rules.prompts.output.prompts if config["images"]["prompts"] == "llm" else [],
    output:
        metadata=f"{RUN}/images/{{scatteritem}}/metadata.csv",
        config=f"{RUN}/images/{{scatteritem}}/config.json",
    log:
        f"{RUN}/logs/images/{{scatteritem}}.log",
    benchmark:
        f"{RUN}/benchmarks/images/{{scatteritem}}.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        code=revision("images"),
        settings=section("images"),
        seed=config["seed"],
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.metadata),
        shard=lambda wildcards: wildcards.scatteritem.replace("-of-", "/"),
        prompts=lambda wildcards, input: flag("--prompts-file", input.prompts),
    message:
        "Synthesizing images, shard {params.shard}"
    shell:
        "python -m didgen images --settings {params.settings:q} --seed {params.seed}"
        " --train {input.train} --captions {input.captions} --backbone {params.backbone}"
        " --shard {params.shard} {params.prompts} --workers {threads}"
        " --memory-mb {resources.mem_mb} --out {params.out} 2>&1 | tee {log}"


rule pair_shard:
    """One shard of the lesion-mask pairs."""
    input:
        train=rules.prepare.output.train,
        captions=rules.caption.output.captions,
        backbone=rules.finetune.output.backbone,
    output:
        metadata=f"{RUN}/pairs/{{scatteritem}}/metadata.csv",
        config=f"{RUN}/pairs/{{scatteritem}}/config.json",
    log:
        f"{RUN}/logs/pairs/{{scatteritem}}.log",
    benchmark:
        f"{RUN}/benchmarks/pairs/{{scatteritem}}.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 8
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 960 * attempt,
    params:
        code=revision("pairs"),
        settings=section("pairs"),
        seed=config["seed"],
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.metadata),
        shard=lambda wildcards: wildcards.scatteritem.replace("-of-", "/"),
        classes=flag("--classes", config["finetune"]["classes"]),
    message:
        "Synthesizing lesion-mask pairs, shard {params.shard}"
    shell:
        "python -m didgen pairs --settings {params.settings:q} --seed {params.seed}"
        " --train {input.train} --captions {input.captions} --backbone {params.backbone}"
        " --shard {params.shard} --workers {threads} --memory-mb {resources.mem_mb}"
        " {params.classes} --out {params.out} 2>&1 | tee {log}"


rule filter:
    """Which pairs are kept, and which are not and why."""
    input:
        pairs=gather.pairs(f"{RUN}/pairs/{{scatteritem}}/metadata.csv"),
        # Trained on real images alone: it does not wait for the pairs.
        segmenter=f"{RUN}/segment/original/seed{SEEDS[0]}/segmenter.safetensors",
    output:
        scores=f"{RUN}/filter/scores.csv",
        kept=f"{RUN}/filter/kept.csv",
        rejected=f"{RUN}/filter/rejected.csv",
        summary=report(
            f"{RUN}/filter/summary.json",
            caption="../workflow/report/filter.rst",
            category="Pairs",
            labels={"table": "kept and rejected"},
        ),
        curve=f"{RUN}/filter/curve.json",
        config=f"{RUN}/filter/config.json",
    log:
        f"{RUN}/logs/filter.log",
    benchmark:
        f"{RUN}/benchmarks/filter.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("filter"),
        settings=section("filter"),
        pairs=lambda wildcards, input: [folder(path) for path in input.pairs],
        out=lambda wildcards, output: folder(output.scores),
    message:
        "Keeping and rejecting lesion-mask pairs"
    shell:
        "python -m didgen filter --settings {params.settings:q}"
        " --pairs {params.pairs} --segmenter {input.segmenter}"
        " --out {params.out} 2>&1 | tee {log}"


rule augment:
    """The augmented data set: synthetic images and pairs in one image folder."""
    input:
        images=for_task(
            "classification", gather.images(f"{RUN}/images/{{scatteritem}}/metadata.csv")
        ),
        pairs=for_task("segmentation", gather.pairs(f"{RUN}/pairs/{{scatteritem}}/metadata.csv")),
        scores=for_task("segmentation", rules.filter.output.scores),
    output:
        metadata=f"{RUN}/augmented/metadata.csv",
        config=f"{RUN}/augmented/config.json",
    log:
        f"{RUN}/logs/augment.log",
    benchmark:
        f"{RUN}/benchmarks/augment.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("augment"),
        settings=section("augment"),
        images=lambda wildcards, input: flag("--images", [folder(path) for path in input.images]),
        pairs=lambda wildcards, input: flag("--pairs", [folder(path) for path in input.pairs]),
        scores=lambda wildcards, input: flag("--scores", input.scores),
        out=lambda wildcards, output: folder(output.metadata),
    message:
        "Joining the synthetic images and pairs"
    shell:
        "python -m didgen augment --settings {params.settings:q}"
        " {params.images} {params.pairs} {params.scores}"
        " --out {params.out} 2>&1 | tee {log}"


rule maps:
    """Attention maps of the lesion and skin tokens on held-out images."""
    input:
        manifest=rules.prepare.output.test,
        captions=rules.caption.output.captions,
        backbone=rules.finetune.output.backbone,
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
        settings=section("maps", pairs="pairs"),
        seed=config["seed"],
        backbone=lambda wildcards, input: folder(input.backbone),
        out=lambda wildcards, output: folder(output.maps),
    message:
        "Comparing attention maps with the masks of held-out images"
    shell:
        "python -m didgen maps --settings {params.settings:q} --seed {params.seed}"
        " --manifest {input.manifest} --captions {input.captions} --backbone {params.backbone}"
        " --out {params.out} 2>&1 | tee {log}"
