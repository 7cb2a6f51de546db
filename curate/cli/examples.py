"""Examples of each command, which its --help ends with."""

EXAMPLES = {
    "init": [
        "curate init photos/ --out mine.yaml",
        "curate init captions.csv",
        "curate init datacomp-basic --out basic.yaml",
        "curate init --on spark",
    ],
    "schema": ["curate schema > recipe.schema.json"],
    "run": [
        "curate run recipe.yaml --out run1",
        "curate run recipe.yaml --out run2 --reuse run1 --set balance.t=5000",
        "curate run recipe.yaml --out run2 --reuse run1 --set sample=null",
        "curate run recipe.yaml --out run1 --retry",
        "curate run recipe.yaml --out /shared/run --on spark.yaml",
        "curate run recipe.yaml --out URL --on spark.yaml -- --spark_master_url=yarn",
        "curate run recipe.yaml --out run1 --detach",
    ],
    "status": ["curate status run1", "curate status run1 --watch"],
    "cancel": ["curate cancel run1"],
    "demo": ["curate demo", "curate demo --out somewhere"],
    "plan": [
        f"curate plan recipe.yaml{more}"
        for more in ("", " --out run2 --reuse run1", " --on spark.yaml --measure 100000")
    ],
    "sql": [
        "curate sql run1",
        "curate sql run1 funnel",
        'curate sql run1 "SELECT rule, count(*) FROM decisions GROUP BY ALL"',
        "curate sql run1 dropped --param rule=duplicate --images",
    ],
    "explain": [
        "curate explain run1 0123456789abcdef0123456789abcdef",
        "curate explain run1 https://example.com/1.jpg",
    ],
    "whatif": [
        "curate whatif run1 --set balance.t=5000",
        "curate whatif run1 --set 'dedup.by=[uid, sha256]' --set rules.words=null",
        "curate whatif run1 --sweep 'balance.t={1000..100000}' --plot sweep.svg",
        "curate whatif run1 --sweep 'rules.aligned=clip_score >= {0.1..0.5}'",
        "curate whatif run1 --rows 1000000 --by rules.aligned.top",
    ],
    "diff": [f"curate diff run1 run2{more}" for more in ("", " --by entry --limit 20", " --side lost --images")],
    "report": ["curate report run1", "curate report run2 --against run1"],
    "forget": ["curate forget run1 --urls requests.txt --dry-run", "curate forget run1 --uids -"],
    "verify": ["curate verify run1"],
    "metadata": [
        "curate metadata build --wiki wikipedia/20231101.de --language de",
        "curate metadata build --wiki 'dumps/*.bz2' --views views --wordnet omw-1.4",
        "curate metadata import metadata.json",
        "curate metadata show metadata.json --find dog",
    ],
}


def examples_of(command: str) -> str:
    """Return the end of a command's help; of `metadata import`, say, those of that command alone."""
    examples = (text for text in EXAMPLES[command.split(maxsplit=1)[0]] if text.startswith(f"curate {command}"))
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])
