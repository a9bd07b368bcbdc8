from dalle_cli import evaluate


def test_own_captions_match_and_shuffled_ones_do_not(dalle):
    own, shuffled = dalle("evaluate", "scene-checker", "-n", "16", "--objects", "shapes", "-q").results
    assert (own["captions"], shuffled["captions"]) == ("own", "shuffled")
    assert own["num_images"] == shuffled["num_images"] == 16
    assert min(own["exact_match"].values()) > 0.8
    assert sum(shuffled["exact_match"].values()) < 0.3 * sum(own["exact_match"].values())


def test_progress_and_table():
    stages = []
    result = evaluate.scene_checker(4, "shapes", progress=lambda *stage: stages.append(stage))
    assert stages == [(name, done, 4) for name in ("own captions", "shuffled captions") for done in (1, 2, 3, 4)]
    assert [line for line in result.table() if line.endswith("captions")] == ["own captions", "shuffled captions"]
