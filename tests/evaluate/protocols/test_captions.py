import json

from dalle_cli import evaluate
from dalle_cli.data.scenes.objects import load_object_set
from dalle_cli.evaluate.suite import suite


def test_captions_are_those_of_the_suite(dalle):
    command = ("evaluate", "captions", "-n", "10", "--objects", "shapes")
    lines = dalle(*command).results
    items = suite(load_object_set("shapes"), 10)
    assert lines == [{"prompt": item.caption, "category": item.category} for item in items]
    assert [json.loads(line) for line in dalle(*command, terminal=True).out.splitlines()] == lines
    assert evaluate.captions(10, "shapes").to_json() == lines
