import pytest

from didgen.methods.protocol import CODE, Request, derive_seed, load_method, shard_of
from didgen.settings.methods import METHODS, check_makes, check_trains


def requests(n):
    return [Request(str(i), "MEL", "", i) for i in range(n)]


def test_seeds_depend_on_their_parts_alone():
    # First 8 bytes of sha256("0/SYN_MEL_00000"), halved: the value must never change.
    assert derive_seed(0, "SYN_MEL_00000") == 5387212287190140768
    seeds = {derive_seed(s, f"i{n}") for s in range(5) for n in range(200)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", "b") != derive_seed("b", "a")


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_shards_cover_every_request_once(n):
    whole = requests(10)
    found = [r for k in range(1, n + 1) for r in shard_of(whole, f"{k}/{n}")]
    assert sorted(r.id for r in found) == sorted(r.id for r in whole)
    assert shard_of(whole, f"1-of-{n}") == shard_of(whole, f"1/{n}")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "", "1/0"])
def test_impossible_shards_are_refused(shard):
    with pytest.raises(ValueError, match="expected k/n"):
        shard_of(requests(3), shard)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_module_that_loads_and_may_train(name):
    assert CODE.keys() == METHODS.keys()
    code = load_method(name)
    assert callable(code.load)
    assert not METHODS[name].trained or callable(code.train)


def test_unknown_methods_are_refused():
    with pytest.raises(
        ValueError, match=f"found method 'gan', expected one of {', '.join(METHODS)}"
    ):
        load_method("gan")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("warp", "images", "'warp', which makes no images; expected one of didgen"),
        ("gan", "pairs", "'gan', which is no method; expected one of didgen, "),
    ],
)
def test_what_a_method_cannot_make_is_refused(name, kind, message):
    with pytest.raises(ValueError, match=message):
        check_makes(name, kind)


@pytest.mark.parametrize("name", ["didgen", "gan"])
def test_a_method_with_a_stage_of_its_own_is_not_trained_twice(name):
    assert check_trains("warp") == "warp"
    with pytest.raises(ValueError, match=f"found '{name}', which is .*; expected one of .*warp"):
        check_trains(name)
