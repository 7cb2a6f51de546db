"""Examples of each command, which its --help ends with."""

EXAMPLES = {
    "init": ["curate init", "curate init datacomp-basic --out basic.yaml", "curate init --on spark"],
    "schema": ["curate schema > recipe.schema.json"],
    "run": [
        "curate run recipe.yaml --out run1",
        "curate run recipe.yaml --out run2 --reuse run1 --set balance.t=5000",
        "curate run recipe.yaml --out run1 --retry",
        "curate run recipe.yaml --out /shared/run --on spark.yaml",
        "curate run recipe.yaml --out /shared/run --on spark.yaml -- --spark_master_url=spark://HOST:7077",
        "curate run recipe.yaml --out gs://bucket/run -- --runner=DataflowRunner --project=PROJECT --region=REGION",
    ],
    "demo": ["curate demo", "curate demo --out somewhere"],
    "plan": ["curate plan recipe.yaml", "curate plan recipe.yaml --out run2 --reuse run1"],
    "sql": [
        "curate sql run1",
        "curate sql run1 funnel",
        'curate sql run1 "SELECT rule, count(*) FROM verdicts GROUP BY ALL" --format csv',
    ],
    "explain": [
        "curate explain run1 0123456789abcdef0123456789abcdef",
        "curate explain run1 https://example.com/1.jpg",
    ],
    "whatif": [
        "curate whatif run1 --set balance.t=5000",
        "curate whatif run1 --sweep balance.t=1000..100000 --plot sweep.svg",
    ],
    "diff": ["curate diff run1 run2"],
    "report": ["curate report run1"],
    "forget": ["curate forget run1 --urls requests.txt --dry-run", "curate forget run1 --uids -"],
    "verify": ["curate verify run1"],
    "metadata": ["curate metadata import metadata.json", "curate metadata show metadata.json --find dog"],
}


def examples_of(command: str) -> str:
    """Return the end of a command's help."""
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in EXAMPLES[command])])
