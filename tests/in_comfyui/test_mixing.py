"""The delta together with LoRAs, merges and another delta: the weights are the sum, in any order."""

import itertools

import pytest
import torch

STRENGTHS = (0.8, -0.5, 1.3, 0.25, 1.0)
KINDS = ("LoRA", "LoHa", "LoKr")
NAMES = ("kohya", "diffusers", "ComfyUI")
FIVE = (("LoRA", "kohya"), ("LoHa", "kohya"), ("LoKr", "ComfyUI"), ("LoRA", "diffusers"), ("LoHa", "diffusers"))


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module")
def model(comfyui, unet_file):
    """The small UNet, loaded once; whatever was put on clones of it, it has to be what it was."""
    import comfy.sd
    from weights import loaded

    model = comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float32})
    before = loaded(model)
    yield model
    after = loaded(model)
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    assert not model.patches


@pytest.fixture(scope="module")
def base(model):
    from weights import loaded

    return loaded(model)


@pytest.fixture(scope="module")
def other(comfyui):
    """Another fine-tune of the same architecture."""
    import comfy.sd
    from trial import small_models

    file = small_models.make_unet(
        comfyui.base / "models" / "diffusion_models" / "other.safetensors", small_models.SD15_TINY, seed=5
    )
    return comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})


@pytest.fixture(scope="module")
def delta(model, delta_file, weights):
    return weights.delta_of(model, delta_file)


@pytest.fixture(scope="module")
def adapter(comfyui, base):
    """(kind, names, seed) -> the name of such a file in models/loras, and what it adds."""
    import adapters

    def make(kind, names, seed=0):
        path = comfyui.base / "models" / "loras" / f"{kind}-{names}-{seed}.safetensors"
        return path.name, adapters.write(path, kind, names, base, seed)

    return make


@pytest.fixture
def apply_all(run, apply_delta, adapter, delta):
    """Apply a chain of ("delta", strength) and (kind, names, strength); returns the MODEL and the parts of the sum."""

    def apply(model, chain):
        parts = []
        for seed, (kind, *names, strength) in enumerate(chain):
            if kind == "delta":
                model = apply_delta(model, strength=strength)
                parts.append((strength, delta))
            else:
                name, added = adapter(kind, *names, seed)
                model = run("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength)[0]
                parts.append((strength, added))
        return model, parts

    return apply


def assert_total(found, base, parts):
    from adapters import total
    from weights import assert_same

    expected = total(base, parts)
    assert_same(found, expected, rtol=1e-5, atol=1e-6)
    changed = {key for key, weight in expected.items() if not torch.equal(weight, base[key])}
    assert changed >= {key for _, part in parts for key in part}  # every part is really there


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("kind", "names"), list(itertools.product(KINDS, NAMES)))
def test_one_lora(model, base, apply_all, weights, kind, names, first):
    chain = [(kind, names, 0.8), ("delta", 1.0)][:: 1 if first else -1]
    found, parts = apply_all(model, chain)
    assert_total(weights.loaded(found), base, parts)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("pair", [(0, 1), (2, 3), (0, 0)])
def test_two_loras(model, base, apply_all, weights, pair, place):
    chain = [(*FIVE[i], strength) for i, strength in zip(pair, STRENGTHS, strict=False)]
    chain.insert(place, ("delta", 0.7))
    found, parts = apply_all(model, chain)
    assert_total(weights.loaded(found), base, parts)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("place", range(6))
def test_five_loras(model, base, apply_all, weights, place, order):
    chain = [(*which, strength) for which, strength in zip(FIVE, STRENGTHS, strict=True)][::order]
    chain.insert(place, ("delta", 1.0))
    found, parts = apply_all(model, chain)
    assert_total(weights.loaded(found), base, parts)


def test_the_sampling_stays_perflows_whatever_comes_after(model, apply_all):
    found, _ = apply_all(model, [("delta", 1.0), ("LoRA", "kohya", 0.8), ("LoKr", "ComfyUI", 0.8)])
    assert found.get_model_object("model_sampling").chord.K == 4
    assert len(found.get_wrappers("outer_sample", "perflow")) == 1


class TestMerges:
    @pytest.fixture
    def merge(self, run):
        def call(node, model1, model2, **inputs):
            return run(f"ModelMerge{node}", model1=model1, model2=model2, **inputs)[0]

        return call

    @pytest.fixture
    def all_three(self, base, other, delta, weights):
        """A, B and D by hand."""
        return base, weights.loaded(other), delta

    @pytest.mark.parametrize("ratio", [0.3, 1.0])
    def test_delta_on_a_merge(self, model, other, merge, apply_delta, all_three, weights, ratio):
        A, B, D = all_three
        found = weights.loaded(apply_delta(merge("Simple", model, other, ratio=ratio), strength=0.9))
        weights.assert_same(found, {key: ratio * A[key] + (1 - ratio) * B[key] + 0.9 * D[key] for key in A}, 1e-5)

    def test_merge_of_an_accelerated_model(self, model, other, merge, apply_delta, all_three, weights):
        """The first model's patches count by its ratio, and its sampling stays."""
        A, B, D = all_three
        merged = merge("Simple", apply_delta(model), other, ratio=0.3)
        assert merged.get_model_object("model_sampling").chord.K == 4
        weights.assert_same(weights.loaded(merged), {key: 0.3 * (A[key] + D[key]) + 0.7 * B[key] for key in A}, 1e-5)

    def test_merge_with_an_accelerated_model(self, model, other, merge, apply_delta, all_three, weights):
        A, B, D = all_three
        merged = merge("Simple", model, apply_delta(other), ratio=0.3)
        weights.assert_same(weights.loaded(merged), {key: 0.3 * A[key] + 0.7 * (B[key] + D[key]) for key in A}, 1e-5)

    def test_add(self, model, other, merge, apply_delta, all_three, weights):
        A, B, D = all_three
        expected = {key: A[key] + B[key] + D[key] for key in A}
        weights.assert_same(weights.loaded(merge("Add", apply_delta(model), other)), expected, 1e-5)
        weights.assert_same(weights.loaded(merge("Add", model, apply_delta(other))), expected, 1e-5)

    def test_subtract(self, model, other, merge, apply_delta, all_three, weights):
        A, B, D = all_three
        found = weights.loaded(merge("Subtract", apply_delta(model), other, multiplier=0.5))
        weights.assert_same(found, {key: 0.5 * (A[key] + D[key] - B[key]) for key in A}, 1e-5)

    def test_difference_of_accelerated_and_base_is_the_delta(
        self, model, other, merge, apply_delta, all_three, weights
    ):
        """It makes another fine-tune the same as Apply does."""
        _, B, D = all_three
        difference = merge("Subtract", apply_delta(model), model, multiplier=1.0)
        found = weights.loaded(merge("Add", other, difference))
        weights.assert_same(found, {key: B[key] + D[key] for key in B}, 1e-5)
        weights.assert_same(found, weights.loaded(apply_delta(other)), 1e-5)


@pytest.fixture(scope="module")
def second(delta_file, unet_file):
    from trial import small_models

    return small_models.make_delta(delta_file.parent / "second.safetensors", unet_file, seed=4)


class TestTwoDeltas:
    def test_weights_are_the_sum(self, model, base, delta, second, apply_delta, weights):
        both = apply_delta(apply_delta(model, strength=0.6), delta_name=second.name, strength=0.5)
        assert_total(weights.loaded(both), base, [(0.6, delta), (0.5, weights.delta_of(model, second))])

    def test_the_node_says_so(self, comfyui, model, second, delta_file, apply_delta):
        node = comfyui.nodes["PeRFlowApplyDelta"]
        common = {"prediction_type": "auto", "windows": 0, "align_steps": True}

        def text(model, strength):
            return node.execute(model=model, delta_name=second.name, strength=strength, **common).ui["text"][0]

        once = apply_delta(model, strength=0.6)
        assert "add up" not in text(model, 1.0)
        expected = f"2 deltas add up: {delta_file.name} 0.6 + {second.name} 0.5, strength 1.1 in all."
        assert text(once, 0.5).splitlines()[-1] == expected
        twice = apply_delta(once, delta_name=second.name, strength=-0.5)
        assert text(twice, 1.0).splitlines()[-1].startswith("3 deltas add up: ")
        assert "add up" not in text(model, 1.0)  # the note is on the clones, not on the model
