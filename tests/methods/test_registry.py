"""Methods by name: their published settings, derived ones, and what keeps a run from being compared with a figure."""

from dataclasses import replace

import pytest

from itaclip_hf.methods import (
    PRESETS,
    Method,
    Settings,
    find_published,
    get_method,
    get_preset,
    identify_method,
    method_names,
    register_method,
)

BENCHMARKS = ("voc21", "context60", "coco_object", "coco_stuff", "cityscapes")

# score thresholds, scales and sizes on VOC, Context, COCO-Object, COCO-Stuff, Cityscapes; windows but for exceptions
PUBLISHED_SETTINGS = {
    "clip": ((0.1, 0.05, 0.1, 0, 0), (40,) * 5, (336,) * 5, (224, 112)),
    "maskclip": ((0,) * 5, (40,) * 5, (512,) * 5, (0, 112)),
    "sclip": ((0.1, 0.1, 0.1, 0, 0), (65, 50, 50, 40, 40), (336, 336, 336, 448, 560), (224, 112)),
    "clearclip": ((0.5, 0.15, 0.4, 0, 0), (50,) * 5, (448,) * 5, (448, 224)),
    "naclip": ((0.1, 0.1, 0.1, 0, 0), (40,) * 5, (336, 336, 336, 336, 560), (224, 112)),
    "itaclip": ((0.1, 0.1, 0.1, 0, 0), (60, 55, 50, 40, 40), (336, 336, 336, 448, 560), (224, 28)),
}
LAST_BLOCKS = {  # maps, width of the prior, intermediate layers, residual, feed-forward
    "clip": (("qk",), 0, (), True, True),
    "maskclip": (("identity",), 0, (), True, True),
    "sclip": (("qq", "kk"), 0, (), True, True),
    "clearclip": (("qq",), 0, (), False, False),
    "naclip": (("kk",), 5, (), False, False),
    "itaclip": (("qq", "kk"), 0, (7, 8, 10), True, False),
}


EXCEPTIONS = {  # where windows or the area threshold differ from the method's own
    ("sclip", "voc21"): {"area_threshold": 0.1},
    ("itaclip", "voc21"): {"area_threshold": 0.1},
    ("naclip", "voc21"): {"window_size": 0},
    ("naclip", "voc20"): {"window_size": 0},
    ("clearclip", "cityscapes"): {"window_size": 224},
}


@pytest.fixture
def registered():
    """Makes methods known for one test; their names begin with "mine", so that they are in nobody's way."""

    def register(method, **options):
        register_method(method, **options)
        return method

    return register


def test_a_method_may_change_with_the_tower():
    corrclip = get_method("corrclip")
    assert corrclip.settings().fused_layers == corrclip.settings(blocks=12).fused_layers == (6, 7, 8, 9, 10)
    deep = corrclip.settings("voc21", blocks=24)
    assert (deep.fused_layers, deep.score_threshold) == (tuple(range(11, 23)), 0.2)
    assert identify_method(deep) is identify_method(corrclip.settings()) is corrclip
    mine = corrclip.derive("mine-deep", "Mine", "me", {"fused_weight": 0.5})
    assert mine.settings(blocks=24) == corrclip.settings(blocks=24).replace(fused_weight=0.5)
    with pytest.raises(ValueError, match="In the method 'mine', with 24 blocks: Expected `pamr_steps`"):
        Method("mine", "Mine", "me", towers={24: {"pamr_steps": -1}})


def test_the_packages_methods_are_these():
    assert method_names()[:6] == tuple(PUBLISHED_SETTINGS)


@pytest.mark.parametrize("name", PUBLISHED_SETTINGS)
def test_settings_are_the_published_ones(name):
    thresholds, scales, edges, (window_size, window_stride) = PUBLISHED_SETTINGS[name]
    for benchmark, threshold, scale, edge in zip(BENCHMARKS, thresholds, scales, edges, strict=True):
        found = get_method(name).settings(benchmark)
        other = {"window_size": window_size, "area_threshold": None, **EXCEPTIONS.get((name, benchmark), {})}
        assert (found.similarity_scale, found.window_stride) == (scale, window_stride)
        assert (found.window_size, found.area_threshold) == (other["window_size"], other["area_threshold"])
        assert (found.score_threshold, found.shortest_edge) == (threshold, edge)
        block = (found.attention_maps, found.attention_prior_std, found.intermediate_layers)
        assert (*block, found.last_residual, found.last_feed_forward) == LAST_BLOCKS[name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED_SETTINGS if name != "itaclip"])
@pytest.mark.parametrize("benchmark", [None, *BENCHMARKS])
def test_methods_but_itaclip_have_one_view_names_alone_and_no_refinement(name, benchmark):
    found = get_method(name).settings(benchmark)
    assert (found.image_engineering, found.auxiliary_weight, found.closing, found.pamr_steps) == (False, 0, False, 0)


def test_itaclip_is_the_default():
    assert get_method("itaclip").settings() == Settings()


def test_methods_are_recognised_whatever_their_windows_are():
    for name in PUBLISHED_SETTINGS:
        assert identify_method(get_method(name).settings("voc21").replace(window_size=0)).name == name
    assert identify_method(Settings(attention_maps=("kk", "qq"))).title == "ITACLIP"  # a sum has no order
    assert identify_method(Settings(attention_maps=("vv",))) is None
    fused = get_method("clip").settings().replace(fused_weight=2.0)
    assert identify_method(fused).name == "clip"  # without blocks to fuse, their weight changes nothing


def test_a_derived_method_changes_what_it_says_and_keeps_the_rest(registered):
    base = get_method("clearclip")
    changes, on_voc = {"attention_maps": ("kk",)}, {"voc21": {"similarity_scale": 9.0}}
    method = registered(base.derive("mine_derived", "Mine", "nowhere", changes, on_voc))
    assert get_method("mine_derived").settings("voc21") == base.settings("voc21").replace(
        attention_maps=("kk",), similarity_scale=9.0
    )
    assert method.settings("voc21").score_threshold == 0.5
    assert identify_method(method.settings()) is method
    assert method.published == {}


def test_of_two_methods_with_one_last_block_the_nearer_is_recognised(registered):
    registered(get_method("sclip").derive("mine_coarse", "Coarse", "nowhere", {"window_stride": 224}))
    assert identify_method(get_method("sclip").settings()).name == "sclip"
    assert identify_method(get_method("mine_coarse").settings()).name == "mine_coarse"


def test_a_benchmark_decides_what_the_method_changes_from_one_to_another():
    decided = get_method("sclip").benchmark_settings("cityscapes")
    assert decided == {
        "area_threshold": None, "score_threshold": 0.0, "shortest_edge": 560, "similarity_scale": 40.0,
    }  # fmt: skip


def test_a_published_figure_is_only_comparable_with_a_run_like_the_published_one():
    alike = get_method("naclip").settings("voc21").replace(pamr_steps=10)
    assert find_published(alike, "voc21") == (64.1, "NACLIP", {}, None, False)
    of_itaclip = find_published(get_method("itaclip").settings("voc21"), "voc21")
    assert of_itaclip == (67.9, "ITACLIP", {}, 80, True)
    other = find_published(alike.replace(pamr_steps=0, score_threshold=0.2), "voc21")
    assert other.differences == {"pamr_steps": (0, 10), "score_threshold": (0.2, 0.1)}
    assert find_published(alike.replace(window_batch_size=2), "voc21").differences == {}  # changes no result
    assert find_published(alike, "ade20k") is None
    assert find_published(Settings(attention_maps=("vv",)), "voc21") is None


def test_presets_are_changes_of_settings():
    assert tuple(PRESETS) == ("paper", "balanced", "fast", "live", "demo")
    assert [Settings().replace(**get_preset(name)).window_stride for name in PRESETS] == [28, 56, 112, 28, 56]
    with pytest.raises(ValueError, match="Expected a preset out of paper, balanced, fast, live, demo, but got 'slow'"):
        get_preset("slow")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"out of clip, maskclip, .*, itaclip.*, but got 'nclip'"):
        get_method("nclip")
    with pytest.raises(ValueError, match=r"Expected a benchmark out of .*voc21.*, but got 'voc'"):
        get_method("clip").settings("voc")


def test_entries_with_mistakes_are_refused(registered):
    with pytest.raises(ValueError, match=r"In the method 'mine': Expected settings .*but got window_strde"):
        Method("mine", "Mine", "nowhere", {"window_strde": 1})
    with pytest.raises(TypeError, match=r"In the method 'mine', on voc21: Expected `closing` to be true or false"):
        Method("mine", "Mine", "nowhere", benchmarks={"voc21": {"closing": 1}})
    with pytest.raises(ValueError, match=r"'clip' is taken\. Choose another name"):
        registered(Method("clip", "Mine", "nowhere"), exist_ok=True)
    registered(Method("mine_twice", "Mine", "nowhere"), exist_ok=True)
    with pytest.raises(ValueError, match=r"'mine_twice' is taken\. Choose another, or pass `exist_ok=True`"):
        registered(Method("mine_twice", "Mine", "nowhere"))
    registered(replace(get_method("mine_twice"), title="Mine again"), exist_ok=True)
    assert get_method("mine_twice").title == "Mine again"
