"""Low-rank and .diff files that make no sense as a delta, and metadata that says what cannot be."""

import pytest
from damage import Draft, as_diff, lora

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
MODULES = {
    "kohya": "lora_unet_" + QUERY.replace(".", "_"),
    "kohya, ComfyUI": "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
    "diffusers": QUERY,
    "diffusers, unet": "unet." + QUERY,
    "ComfyUI": "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q",
}
MODULE = MODULES["ComfyUI"]
OTHER = MODULE.replace("attn1", "attn2")
NORM, BIAS = "diffusion_model.out.0", "diffusion_model.out.2.bias"
PAIR = lora(MODULE, 320, 320)
UP, DOWN = PAIR


@pytest.fixture(scope="module")
def target(comfyui, unet_file):
    from refusal import base_model

    with base_model(comfyui, unet_file) as target:
        yield target


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
class TestPairs:
    def test_whole(self, target, module):
        """With and without alpha these pass, so what follows is refused for what is wrong with it."""
        for shapes in (lora(module, 320, 320), lora(module, 320, 320) | {f"{module}.alpha": ()}):
            assert len(target.apply(Draft.of(shapes)).result[0].patches) == 1

    def test_up_without_down(self, target, module):
        text = target.refusal(Draft.of({f"{module}.lora_up.weight": (320, 4)}))
        assert (
            f"names that do not belong together (ComfyUI's LoRA loader stopped at '{module}.lora_down.weight')" in text
        )

    def test_down_without_up(self, target, module):
        text = target.refusal(Draft.of({f"{module}.lora_down.weight": (4, 320)}))
        assert f"has 1 tensor ({module}.lora_down.weight) of an unknown kind, half of a pair" in text

    def test_ranks_that_disagree(self, target, module):
        text = target.refusal(Draft.of(lora(module, 320, 320) | {f"{module}.lora_up.weight": (320, 5)}))
        assert f"{module} has lora_up of shape (320, 5) and lora_down of shape (4, 320), expected one rank" in text

    @pytest.mark.parametrize("shape", [(2,), (1, 2), (0,)])
    def test_alpha_of_a_wrong_shape(self, target, module, shape):
        text = target.refusal(Draft.of(lora(module, 320, 320) | {f"{module}.alpha": shape}))
        assert "a single number for alpha" in text

    @pytest.mark.parametrize(("out", "inner"), [(321, 320), (320, 321), (640, 160)])
    def test_of_another_layer(self, target, module, out, inner):
        text = target.refusal(Draft.of(lora(module, out, inner)))
        assert f"tensor {module} has shape {out}x{inner}, expected 320x320 as in the model" in text

    def test_diff_besides(self, target, module):
        """ComfyUI's loader would take the .diff and drop the pair without a word."""
        both = lora(module, 320, 320) | {f"{module}.diff": (320, 320)}
        for shapes in (both, both | lora(OTHER, 320, 320)):
            text = target.refusal(Draft.of(shapes))
            assert f"({module}.lora_down.weight, {module}.lora_up.weight)" in text
            assert "second one for a weight" in text


@pytest.mark.parametrize(
    "shapes",
    [
        {UP: (320,)},
        {UP: ()},
        {UP: (320, 4, 3, 3)},
        {DOWN: (4,)},
        {DOWN: ()},
        {DOWN: (0, 320)},
        {UP: (320, 0)},
        {UP: (320, 0), DOWN: (0, 320)},
    ],
    ids=str,
)
def test_pairs_that_are_no_matrices(target, shapes):
    assert "expected one rank in both" in target.refusal(Draft.of(PAIR | shapes))


KINDS = {
    "loha": {f"hada_w{i}_{part}": shape for i in (1, 2) for part, shape in (("a", (320, 4)), ("b", (4, 320)))},
    "lokr": {"lokr_w1": (16, 16), "lokr_w2": (20, 20)},
    "lokr ": {"lokr_w1": (16, 16), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 20)},
    "oft": {"oft_blocks": (4, 80, 80)},
    "glora": {f"{part}.weight": (320, 320) for part in ("a1", "a2", "b1", "b2")},
    "boft": {"oft_blocks": (2, 4, 80, 80)},
    "LoRA with mid": {"lora_up.weight": (320, 4), "lora_down.weight": (4, 320), "lora_mid.weight": (4, 4, 3, 3)},
    "LoRA with mid, dora_scale": {"lora_up.weight": (320, 4), "lora_down.weight": (4, 320), "dora_scale": (320, 1)},
}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_adapters(target, kind, module):
    text = target.refusal(Draft.of({f"{module}.{part}": shape for part, shape in KINDS[kind].items()}))
    assert f"is of the kind {kind.strip()}" in text
    assert module in text
    assert "use Load LoRA for it" in text


@pytest.mark.parametrize("part", ["hada_w1_a", "lokr_w2_b", "a1.weight", "oft_blocks", "oft_diag"])
def test_half_of_another_kind(target, part):
    text = target.refusal(Draft.of({f"{MODULE}.{part}": (320, 4)}))
    assert MODULE in text


@pytest.mark.parametrize("kind", ["set_weight", "reshape_weight"])
def test_what_is_no_difference(target, kind):
    """ComfyUI's loader puts a set_weight in the weight's place, whatever the strength."""
    draft = Draft.of(PAIR | {f"{MODULE}.{kind}": (320, 320)})
    text = target.refusal(draft)
    assert f"({MODULE})" in text
    assert "use Load LoRA for it" in text


@pytest.mark.parametrize(
    "shapes",
    [
        lora("lora_unet_add_embedding_linear_1", 4, 4),
        lora("lora_unet_mid_block_resnets_0_conv_shortcut", 320, 320),
        lora("down_blocks.0.downsamplers.0.conv", 320, 2880),
        {"lora_unet_add_embedding_linear_1.diff": (4, 4)},
        {"lora_unet_add_embedding_linear_1.diff_b": (4,)},
        {f"{MODULE}.diff_b": (320,)},
        lora("lora_te_text_model_encoder_layers_0_mlp_fc1", 768, 768),
        lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", 768, 768),
        lora("text_encoder.text_model.encoder.layers.0.mlp.fc1", 768, 768),
        lora("lora_unet_nowhere", 320, 320),
        lora("transformer.single_transformer_blocks.0.attn.to_q", 320, 320, up="lora_B.weight", down="lora_A.weight"),
    ],
    ids=lambda shapes: next(iter(shapes)),
)
@pytest.mark.parametrize("with_a_good_pair", [False, True])
def test_modules_that_the_model_lacks(target, shapes, with_a_good_pair):
    """ComfyUI's own map of names has some of these."""
    text = target.refusal(Draft.of(shapes | (PAIR if with_a_good_pair else {})))
    assert f"has {len(shapes)} tensor" in text
    assert all(name in text for name in shapes)
    assert "which the model does not have" in text


def test_pcm_loras(comfyui, target, unet_file):
    """Their layers are a part of the model's, so they would fit; one that says that it is PeRFlow's is taken."""
    from safetensors.torch import load_file, save_file
    from trial import small_models

    def write(path, **said):
        small_models.make_pcm_lora(path, unet_file)
        save_file(load_file(path), path, said)

    text = target.refusal(write)
    assert "is a LoRA for the layers that PCM and LCM LoRAs change, and it does not mention PeRFlow" in text
    assert "use Load LoRA for it, with Phase Schedule (PCM)" in text
    assert target.apply(lambda path: write(path, prediction_type="diff_eps"))


def test_other_loras_are_asked_about(comfyui, target):
    """One of a part of the layers may be anybody's."""
    said = target.apply(Draft.of(PAIR)).ui["text"][0]
    assert "The file does not say that it is a PeRFlow delta." in said
    assert "does not say" not in target.apply(Draft.of(PAIR, metadata={"prediction_type": "diff_eps"})).ui["text"][0]


OVERFLOWS = {"up and down": {UP: 1e30, DOWN: 1e30}, "alpha": {UP: 1.0, DOWN: 1.0, f"{MODULE}.alpha": 1e38}}


@pytest.mark.parametrize("numbers", OVERFLOWS.values(), ids=OVERFLOWS)
def test_products_that_overflow(target, numbers):
    draft = Draft.of(PAIR | {f"{MODULE}.alpha": ()}, dtype="F32")
    assert target.apply(draft)
    for name, value in numbers.items():
        draft = draft.with_number(name, value, 0.0)
    assert f"tensor {MODULE} times strength 1 reaches" in target.refusal(draft)


def test_a_loader_that_copies(target, monkeypatch):
    """What ComfyUI's loader made of a tensor is known by name, whatever object it is."""
    import comfy.lora

    load = comfy.lora.load_lora
    monkeypatch.setattr(
        comfy.lora,
        "load_lora",
        lambda lora, *args, **kwargs: load({k: t.clone() for k, t in lora.items()}, *args, **kwargs),
    )
    pairs = PAIR | {
        f"{MODULE}.alpha": (),
        "diffusion_model.out.2.diff": (4, 320, 3, 3),
        "diffusion_model.out.2.diff_b": (4,),
    }
    assert len(target.apply(Draft.of(pairs)).result[0].patches) == 3


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "shapes",
    [
        {"diffusion_model.out.2.diff_b": (4,), f"{BIAS}.diff": (4,)},
        {f"{NORM}.diff": (320,), f"{NORM}.w_norm": (320,)},
        {f"{NORM}.diff_b": (320,), f"{NORM}.b_norm": (320,), f"{NORM}.w_norm": (320,)},
        PAIR | lora(MODULE, 320, 320, up="lora_B.weight", down="lora_A.weight"),
        PAIR | {f"{MODULE}.lora_unknown": (4,)},
    ],
    ids=lambda shapes: " ".join(shapes),
)
def test_one_weight_twice_in_one_module(target, shapes, order):
    draft = Draft.of(dict(list((PAIR | shapes).items())[::order]))
    assert "of an unknown kind, half of a pair, or a second one for a weight" in target.refusal(draft)


@pytest.mark.parametrize("pair", [("kohya", "ComfyUI"), ("kohya", "kohya, ComfyUI"), ("diffusers", "diffusers, unet")])
@pytest.mark.parametrize("kind", ["lora", "diff"])
def test_one_module_under_two_names(target, pair, kind):
    one, other = (MODULES[name] for name in pair)
    if kind == "lora":
        shapes = lora(one, 320, 320) | lora(other, 320, 320)
    else:
        shapes = {f"{one}.diff": (320, 320), f"{other}.diff": (320, 320)}
    text = target.refusal(Draft.of(shapes))
    assert f"holds the weight {MODULE}.weight twice, as " in text


@pytest.mark.parametrize(
    "value",
    ["", "eps", "v_prediction", "DDIM_EPS", "diff_eps ", "velocity,ddim_eps", "one\nof\nmany lines", "x" * 10000],
)
@pytest.mark.parametrize("form", [str, as_diff])
def test_prediction_type(target, core, value, form):
    draft = target.delta({"prediction_type": value}).with_names(form)
    text = target.refusal(draft)
    found = core("errors").shown(value, 40)
    assert f'says prediction_type "{found}"' in text
    assert target.apply(draft, prediction_type="velocity")


@pytest.mark.parametrize(
    "value", ["", "0", "-4", "+4", "4.0", "4,0", " 4", "four", "1e1", "0x4", "101", "²", "4\n4", "9" * 5000]
)
def test_windows(target, value):
    draft = target.delta({"windows": value})
    assert "expected a whole number from 1 to 100: choose it on the node." in target.refusal(draft)
    assert target.apply(draft, windows=4)
