"""Report: all results of the run, on one page."""


rule report:
    """One self-contained page: data, samples, attention maps, losses, metrics, verdict."""
    input:
        summary=rules.data.output.summary,
        captions=rules.caption.output.captions,
        training=fine_tuned(f"{RUN}/finetune/training.csv"),
        maps=fine_tuned(rules.maps.output.maps),
        filtered=of_sets("pairs", rules.filter.output.summary),
        augmented=of_sets(None, rules.augment.output.metadata),
        fidelity=of_sets(None, rules.fidelity.output.fidelity),
        judged=of_sets("images", rules.label_fidelity.output.summary),
        verdict=rules.verdict.output.verdict,
    output:
        page=report(
            f"{RUN}/report/index.html",
            caption="../workflow/report/page.rst",
            category="Report",
            labels={"page": "the whole run"},
        ),
        config=f"{RUN}/report/config.json",
    log:
        f"{RUN}/logs/report.log",
    benchmark:
        f"{RUN}/benchmarks/report.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        code=revision("report"),
        settings=as_json(config["report"]),
        run_dir=lambda wildcards, output: folder(folder(output.page)),
    message:
        "Writing the report"
    shell:
        "python -m didgen report --settings {params.settings:q} --run-dir {params.run_dir:q}"
        " --out {output.page:q} 2>&1 | tee {log:q}"


OUTCOME = workflow.source_path("../workflow/outcome.py")


onsuccess:
    shell("{sys.executable:q} {OUTCOME:q} {RUN:q}")
