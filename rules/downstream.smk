"""Downstream: train the same networks with and without synthetic data, and compare."""

import re


wildcard_constraints:
    arm="|".join(map(re.escape, ARMS)),
    seed=r"\d+",


rule classify_job:
    """One classifier of one arm and one seed, evaluated on the test images."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
        test=rules.data.output.test,
        synthetic=synthetic_data,
    output:
        metrics=report(
            f"{RUN}/classify/{{arm}}/seed{{seed}}/metrics.json",
            caption="../workflow/report/classify.rst",
            category="Classification",
            labels={"arm": "{arm}", "seed": "{seed}"},
        ),
        predictions=f"{RUN}/classify/{{arm}}/seed{{seed}}/predictions.csv",
        classifier=f"{RUN}/classify/{{arm}}/seed{{seed}}/classifier.safetensors",
        curves=f"{RUN}/classify/{{arm}}/seed{{seed}}/curves.csv",
        config=f"{RUN}/classify/{{arm}}/seed{{seed}}/config.json",
    log:
        f"{RUN}/logs/classify/{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/classify/{{arm}}-seed{{seed}}.tsv"
    conda:
        "../envs/generation.yaml"
    # Small networks gain little from a second core; another job beside them gains a whole one.
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 480 * trainings_of(wildcards.arm) * attempt,
    params:
        code=revision("classify"),
        settings=as_json(
            config["classify"],
            classification_metric=config["verdict"]["classification_metric"],
            synthetic=lambda wildcards: synthetic_data(wildcards) or None,
        ),
        state=f"{RUN}/.state/classify",
        out=lambda wildcards, output: folder(output.metrics),
    message:
        "Training the classifier of arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "python -m didgen classify --settings {params.settings:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q}"
        " --train {input.train:q} --val {input.val:q} --test {input.test:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule segment_job:
    """One segmenter of one arm and one seed, evaluated on the test images."""
    input:
        train=rules.data.output.train,
        val=rules.data.output.val,
        test=rules.data.output.test,
        synthetic=synthetic_data,
    output:
        metrics=report(
            f"{RUN}/segment/{{arm}}/seed{{seed}}/metrics.json",
            caption="../workflow/report/segment.rst",
            category="Segmentation",
            labels={"arm": "{arm}", "seed": "{seed}"},
        ),
        scores=f"{RUN}/segment/{{arm}}/seed{{seed}}/scores.csv",
        segmenter=f"{RUN}/segment/{{arm}}/seed{{seed}}/segmenter.safetensors",
        curves=f"{RUN}/segment/{{arm}}/seed{{seed}}/curves.csv",
        config=f"{RUN}/segment/{{arm}}/seed{{seed}}/config.json",
    log:
        f"{RUN}/logs/segment/{{arm}}-seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/segment/{{arm}}-seed{{seed}}.tsv"
    conda:
        "../envs/generation.yaml"
    # Small networks gain little from a second core; another job beside them gains a whole one.
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 480 * trainings_of(wildcards.arm) * attempt,
    params:
        code=revision("segment"),
        settings=as_json(
            config["segment"],
            segmentation_metric=config["verdict"]["segmentation_metric"],
            synthetic=lambda wildcards: synthetic_data(wildcards) or None,
        ),
        state=f"{RUN}/.state/segment",
        out=lambda wildcards, output: folder(output.metrics),
    message:
        "Training the segmenter of arm {wildcards.arm}, seed {wildcards.seed}"
    shell:
        "python -m didgen segment --settings {params.settings:q}"
        " --arm {wildcards.arm:q} --seed {wildcards.seed:q}"
        " --train {input.train:q} --val {input.val:q} --test {input.test:q}"
        " --state {params.state:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule external_test:
    """Every network of every arm, tested on the external sets."""
    input:
        external=rules.external_data.output.manifests,
        summary=rules.external_data.output.summary,
        classify=for_task(
            "classification",
            expand(rules.classify_job.output.classifier, arm=CLASSIFY_ARMS, seed=SEEDS),
        ),
        segment=for_task(
            "segmentation",
            expand(rules.segment_job.output.segmenter, arm=SEGMENT_ARMS, seed=SEEDS),
        ),
    output:
        predictions=f"{RUN}/external_test/predictions.csv",
        scores=f"{RUN}/external_test/scores.csv",
        config=f"{RUN}/external_test/config.json",
    log:
        f"{RUN}/logs/external_test.log",
    benchmark:
        f"{RUN}/benchmarks/external_test.tsv"
    conda:
        "../envs/generation.yaml"
    threads: 1
    resources:
        gpu=gpus,
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        code=revision("external_test"),
        settings=as_json(
            {},
            seeds=SEEDS,
            external=f"{RUN}/external_data",
            memory_gb=max(config[stage]["memory_gb"] for stage in ("classify", "segment")),
            classify=for_task("classification", f"{RUN}/classify") or None,
            classify_arms=for_task("classification", CLASSIFY_ARMS),
            segment=for_task("segmentation", f"{RUN}/segment") or None,
            segment_arms=for_task("segmentation", SEGMENT_ARMS),
        ),
        out=lambda wildcards, output: folder(output.config),
    message:
        "Testing every network on the external sets"
    shell:
        "python -m didgen external_test --settings {params.settings:q}"
        " --out {params.out:q} 2>&1 | tee {log:q}"


rule verdict:
    """Do the synthetic data help? Per task: difference, interval, p and a sentence."""
    input:
        test=rules.data.output.test,
        external=list(rules.external_test.output) if EXTERNAL else [],
        classify=for_task(
            "classification",
            expand(
                f"{RUN}/classify/{{arm}}/seed{{seed}}/metrics.json", arm=CLASSIFY_ARMS, seed=SEEDS
            ),
        ),
        segment=for_task(
            "segmentation",
            expand(
                f"{RUN}/segment/{{arm}}/seed{{seed}}/metrics.json", arm=SEGMENT_ARMS, seed=SEEDS
            ),
        ),
    output:
        verdict=report(
            f"{RUN}/verdict.json",
            caption="../workflow/report/verdict.rst",
            category="Verdict",
            labels={"table": "verdict"},
        ),
        arms=report(
            f"{RUN}/verdict/arms.csv",
            caption="../workflow/report/arms.rst",
            category="Verdict",
            labels={"table": "scores of the arms"},
        ),
        tests=report(
            f"{RUN}/verdict/tests.csv",
            caption="../workflow/report/tests.rst",
            category="Verdict",
            labels={"table": "tests of the differences"},
        ),
        external=f"{RUN}/verdict/external.csv",
        groups=report(
            f"{RUN}/verdict/groups.csv",
            caption="../workflow/report/groups.rst",
            category="Verdict",
            labels={"table": "groups of test images"},
        ),
        config=f"{RUN}/verdict/config.json",
    log:
        f"{RUN}/logs/verdict.log",
    benchmark:
        f"{RUN}/benchmarks/verdict.tsv"
    conda:
        "../envs/data.yaml"
    # Measuring the test images, for groups, is most of the work.
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        code=revision("verdict"),
        settings=as_json(
            config["verdict"],
            run=config["run"],
            seeds=SEEDS,
            classify=for_task("classification", f"{RUN}/classify") or None,
            classify_arms=for_task("classification", CLASSIFY_ARMS) or None,
            segment=for_task("segmentation", f"{RUN}/segment") or None,
            segment_arms=for_task("segmentation", SEGMENT_ARMS) or None,
            external=f"{RUN}/external_test" if EXTERNAL else None,
            generator_seeds=config["generator_seeds"],
        ),
        tables=lambda wildcards, output: folder(output.config),
    message:
        "Comparing the arms"
    shell:
        "python -m didgen verdict --settings {params.settings:q}"
        " --test {input.test:q} --workers {threads}"
        " --out {output.verdict:q} --tables {params.tables:q} 2>&1 | tee {log:q}"
