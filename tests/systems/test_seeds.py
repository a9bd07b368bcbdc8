from dalle_cli.systems.seeds import noise_seed


def test_seeds_do_not_change_between_versions():
    assert noise_seed(7, 1) == 3825955368494240696
    assert noise_seed(7) == noise_seed(7, 0)


def test_seeds_of_different_samples_differ():
    seeds = {noise_seed(seed, index) for seed in (0, 1, 10, 2**64 - 1) for index in (0, 1, 10, 2**32)}
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
