"""Wonder3D through the loader node: the official numbers, rows that stay together, and the PeRFlow delta on it."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfyui")


@pytest.fixture(scope="module")
def reference(golden):
    return golden("wonder3d_tiny")


@pytest.fixture(scope="module")
def folder(comfyui):
    return comfyui.base / "models" / "diffusion_models"


@pytest.fixture(scope="module")
def weights_by_formula(reference):
    from wonder3d_models import formula_weights

    return formula_weights(reference["keys"])


@pytest.fixture(scope="module")
def tiny(run, folder, weights_by_formula):
    """The reference's tiny Wonder3D as a MODEL."""
    from wonder3d_models import write

    file = write(weights_by_formula, folder / "wonder3d-tiny.safetensors")
    return run("Wonder3DLoader", unet_name=file.name)[0]


def predicted(model, reference, together: int = 1, **options) -> torch.Tensor:
    """The UNet's output for the reference's case, as many times in one batch as asked for."""
    from wonder3d_models import inputs

    x, context, _ = inputs(reference["cases"][0])
    y = torch.tensor(reference["class_embed_input"])
    case = [part.repeat(together, *[1] * (part.ndim - 1)) for part in (x, context, y)]
    t = torch.full((12 * together,), float(reference["cases"][0]["t"]))
    unet = model.model.diffusion_model
    return unet(case[0], t, context=case[1], y=case[2], transformer_options=options)


def test_the_unet_is_the_references(tiny, reference):
    from wonder3d_models import inputs

    expected = inputs(reference["cases"][0])[2]
    assert (predicted(tiny, reference) - expected).abs().max() < 1e-5
    assert (predicted(tiny, reference, together=2) - expected.repeat(2, 1, 1, 1)).abs().max() < 1e-5


def test_without_the_patches_it_is_another(tiny, reference):
    """What the tolerance above is worth."""
    from wonder3d_models import inputs

    plain = {("input", 1): lambda q, k, v, options: v}
    found = predicted(tiny, reference, patches_replace={"attn1": plain})
    assert (found - inputs(reference["cases"][0])[2]).abs().max() > 1e-2


@pytest.mark.parametrize("form", ["old names.bin", "old names.safetensors", "checkpoint.safetensors"])
def test_every_published_form_is_the_same(run, tiny, folder, weights_by_formula, reference, form):
    from wonder3d_models import with_old_names, write

    tensors = weights_by_formula
    if form.startswith("old"):
        tensors = with_old_names(tensors)
    else:  # as Save Checkpoint writes it, with what belongs to other models
        state = tiny.model.diffusion_model.state_dict()
        tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
        tensors["first_stage_model.quant_conv.bias"] = torch.zeros(8)
    file = write(tensors, folder / f"wonder3d {form}")
    assert torch.equal(predicted(run("Wonder3DLoader", unet_name=file.name)[0], reference), predicted(tiny, reference))


def test_a_copy_of_its_own_is_the_same(tiny, reference):
    """ComfyUI makes one from the file for conditioning hooks, training and a second GPU."""
    make, arguments = tiny.cached_patcher_init
    copy = make(*arguments, disable_dynamic=True)
    assert copy.model is not tiny.model
    assert torch.equal(predicted(copy, reference), predicted(tiny, reference))


class TestSampling:
    @pytest.fixture
    def memory(self, monkeypatch):
        from wonder3d_models import Memory

        return Memory(monkeypatch)

    def test_rows_split_by_memory_give_the_same(self, tiny, memory):
        together = memory.sample(tiny, plenty=True, width=16)
        assert memory.rows == [24, 24]
        apart = memory.sample(tiny, plenty=False, width=16)
        assert memory.rows == [12] * 4
        assert together.std() > 0.1
        assert torch.allclose(apart, together, atol=1e-5 * together.std())

    def test_two_objects_do_not_read_each_other(self, tiny, memory):
        both = memory.sample(tiny, plenty=True, width=16, things=2)
        assert memory.rows == [48, 48]
        apart = memory.sample(tiny, plenty=False, width=16, things=2)
        assert memory.rows == [24] * 4
        assert torch.allclose(apart, both, atol=1e-5 * both.std())

    def test_more_rows_than_the_conditioning_has_repeat_it(self, run, tiny):
        """Repeat Latent Batch behind the conditioning: each object twice."""
        from wonder3d_models import conditioned

        random = torch.Generator().manual_seed(2)
        prompts = conditioned(torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 1, 16, generator=random))
        noise = torch.randn(24, 4, 8, 8, generator=random)
        once, twice = (ksample(run, tiny, prompts, latent=x)["samples"] for x in (noise, noise.repeat(2, 1, 1, 1)))
        assert torch.allclose(twice, once.repeat(2, 1, 1, 1), atol=1e-5 * once.std())

    def test_cfg_1_needs_one_set_of_rows(self, tiny, memory):
        memory.sample(tiny, plenty=True, width=16, cfg=1.0)
        assert memory.rows == [12, 12]

    @pytest.mark.parametrize("cfg", [1.0, 3.0])
    def test_one_step_is_what_the_unet_called_by_hand_gives(self, tiny, core, cfg):
        """Each domain and view with its own rows, at CFG above 1 too, where the official copy mixes the two halves."""
        import comfy.sample
        import comfy.samplers
        from wonder3d_models import conditioned

        random = torch.Generator().manual_seed(1)
        noise, picture = torch.randn(12, 4, 8, 8, generator=random), torch.randn(1, 4, 8, 8, generator=random)
        context = torch.randn(1, 1, 16, generator=random)
        sigma = tiny.get_model_object("model_sampling").sigmas[749]
        sigmas = torch.tensor([sigma, 0.0])
        euler, empty = comfy.samplers.sampler_object("euler"), torch.zeros_like(noise)
        prompts = conditioned(picture, context)
        found = comfy.sample.sample_custom(tiny, noise, cfg, euler, sigmas, *prompts, empty, disable_pbar=True)

        def eps(strength):
            x = torch.cat(
                [noise * sigma / (sigma**2 + 1) ** 0.5, (strength * 0.18215 * picture).expand(12, -1, -1, -1)], 1
            )
            t, rows = torch.full((12,), 749.0), (strength * context).expand(12, -1, -1)
            return tiny.model.diffusion_model(x, t, context=rows, y=core("views.twelve_views").class_vectors().float())

        guided = eps(0) + cfg * (eps(1) - eps(0))
        expected = (noise * sigma - sigma * guided) / 0.18215
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))

    @pytest.mark.parametrize("rows", [1, 6, 13])
    def test_another_latent_is_refused(self, run, tiny, rows):
        from wonder3d_models import conditioned

        prompts = conditioned(torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 16))
        with pytest.raises(ValueError, match=f"given a latent of {rows} pictures, expected 12 for each object"):
            ksample(run, tiny, prompts, torch.zeros(rows, 4, 8, 8))

    def test_other_conditioning_is_refused(self, run, tiny):
        prompts = [[[torch.zeros(1, 77, 16), {}]]] * 2
        with pytest.raises(ValueError, match="conditioning without a picture, expected positive and negative of Won"):
            ksample(run, tiny, prompts, torch.zeros(12, 4, 8, 8))


def ksample(run, model, prompts, latent: torch.Tensor) -> dict[str, torch.Tensor]:
    """One step from a latent without noise added, so that equal rows stay equal."""
    settings = {"noise_seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    settings |= {"add_noise": "disable", "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "disable"}
    inputs = {"positive": prompts[0], "negative": prompts[1], "latent_image": {"samples": latent}}
    return run("KSamplerAdvanced", model=model, **inputs, **settings)[0]


class TestFilesThatAreRefused:
    SENTENCE = r"[^\n]*, expected [^\n]+: [^\n]+\."

    @pytest.fixture
    def refusal(self, run, core, folder):
        import re

        from wonder3d_models import write

        error = core("weights.weights_file").WeightsFileError

        def refusal(tensors, name="refused.safetensors"):
            file = write(tensors, folder / name)
            try:
                with pytest.raises(error, match=r"^refused\.") as caught:
                    run("Wonder3DLoader", unet_name=name)
            finally:
                file.unlink()
            text = str(caught.value)
            assert re.fullmatch(self.SENTENCE, text), text
            return text

        return refusal

    def test_an_sd15_unet(self, refusal, weights_by_formula):
        first = weights_by_formula["conv_in.weight"]
        text = refusal(weights_by_formula | {"conv_in.weight": first[:, :4]})
        assert "is a UNet with 4 input channels" in text

    def test_one_with_eight_channels_for_another_purpose(self, refusal, weights_by_formula):
        text = refusal(
            {name: t for name, t in weights_by_formula.items() if "class_emb" not in name and "joint" not in name}
        )
        assert "8 input channels and without class_embedding, as InstructPix2Pix and Zero123 are" in text

    def test_what_is_no_unet(self, refusal):
        assert "has 1 tensor and not the layers" in refusal({"a": torch.zeros(2, 2)})

    def test_missing_joint_tensors(self, refusal, weights_by_formula):
        one = "mid_block.attentions.0.transformer_blocks.0.attn_joint_mid.to_v.weight"
        text = refusal({name: t for name, t in weights_by_formula.items() if name != one})
        assert f"lacks 1 tensor ({one}) of the attention between normals and colours" in text
        text = refusal({name: t for name, t in weights_by_formula.items() if "joint" not in name})
        assert "lacks 112 tensors (down_blocks.0.attentions.0.transformer_blocks.0." in text
        assert "of the attention between normals and colours" in text

    def test_other_missing_unknown_and_doubled_tensors(self, refusal, weights_by_formula):
        text = refusal({name: t for name, t in weights_by_formula.items() if name != "conv_out.bias"})
        assert "lacks 1 tensor (conv_out.bias), expected" in text
        last = "mid_block.attentions.0.transformer_blocks.0.attn_joint_last.to_v.weight"
        assert f"has 1 tensor ({last}), which Wonder3D does not have" in refusal(
            weights_by_formula | {last: torch.zeros(1)}
        )
        assert "holds the weight out.2.bias twice, as conv_out.bias and as out.2.bias" in refusal(
            weights_by_formula | {"out.2.bias": torch.zeros(4)}
        )

    def test_a_tensor_of_another_shape(self, refusal, weights_by_formula):
        text = refusal(weights_by_formula | {"class_embedding.linear_1.weight": torch.zeros(128, 12)})
        assert "tensor class_embedding.linear_1.weight has shape 128x12, expected 128x10" in text

    def test_a_pickle_with_more_than_tensors(self, refusal, weights_by_formula):
        text = refusal({"conv_in.weight": Dangerous()}, "refused.bin")
        assert "cannot be read" in text
        assert not Dangerous.ran

    @pytest.mark.parametrize("name", ["refused.safetensors", "refused.bin"])
    def test_half_a_file(self, run, folder, weights_by_formula, name):
        from wonder3d_models import write

        file = write(weights_by_formula, folder / name)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"^refused\.\w+ cannot be read \(.+\), expected Wonder3D's UNet"):
            run("Wonder3DLoader", unet_name=name)
        file.unlink()


class Dangerous:
    """Something that runs when it is unpickled."""

    ran: list[int] = []  # noqa: RUF012

    def __reduce__(self):
        return (Dangerous.ran.append, (1,))


@pytest.fixture(scope="module")
def wonder3d(run, folder):
    from trial import small_models

    file = small_models.make_wonder3d(folder / "wonder3d-small.bin")
    return run("Wonder3DLoader", unet_name=file.name)[0]


@pytest.fixture(scope="module")
def delta_path(comfyui):
    from wonder3d_delta import make_wonder3d_delta

    return make_wonder3d_delta(comfyui.base / "models" / "perflow" / "wonder3d-delta.safetensors")


@pytest.fixture(scope="module")
def keys(golden):
    return golden("wonder3d_delta_keys")


class TestDelta:
    """685 of SD1.5's 686 tensors fit, on a narrow model with every layer of the real one."""

    def test_the_small_models_have_the_published_names(self, folder, wonder3d, delta_path, keys):
        from safetensors.torch import load_file

        unet, delta = torch.load(folder / "wonder3d-small.bin", weights_only=True), load_file(str(delta_path))
        assert len(unet) == keys["wonder3d_keys"]
        assert len(delta) == keys["sd15_unet_keys"]
        assert unet.keys() - delta.keys() == set(keys["wonder3d_only"])
        fitting = {name for name in delta if delta[name].shape == unet[name].shape}
        assert fitting == set(keys["delta_applied"])
        assert delta.keys() - fitting == set(keys["delta_skipped_shape"])

    def test_it_is_refused_without_partial(self, apply_delta, wonder3d, delta_path):
        with pytest.raises(
            ValueError, match=r"conv_in\.weight has shape 32x4x3x3, expected 32x8x3x3 .* extra input channels, so"
        ):
            apply_delta(wonder3d, delta_name=delta_path.name)

    def test_with_partial_all_but_the_input_layer_are_added(self, comfyui, wonder3d, delta_path, weights, keys):
        from refusal import DEFAULTS

        node = comfyui.nodes["PeRFlowApplyDelta"]
        output = node.execute(model=wonder3d, delta_name=delta_path.name, partial=True, **DEFAULTS)
        (text,) = output.ui["text"]
        assert "diff_eps, 4 windows" in text
        assert "Applied: 685 of 686 tensors." in text
        assert "Left out, being of another shape: 1 tensor (diffusion_model.input_blocks.0.0.weight)." in text
        assert "nothing for them in the file: 116 tensors (diffusion_model.input_blocks" in text
        before, after = weights.loaded(wonder3d), weights.loaded(output.result[0])
        delta = weights.delta_of(wonder3d, delta_path)
        expected = {f"diffusion_model.{self.ours(wonder3d)[name]}" for name in keys["delta_applied"]}
        assert {name for name in before if not torch.equal(before[name], after[name])} == expected
        for name in expected:
            assert torch.allclose(after[name], before[name] + delta[name], rtol=1e-6, atol=1e-7), name

    @staticmethod
    def ours(model):
        import comfy.utils

        return comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)

    def test_four_steps_at_the_authors_settings(self, run, apply_delta, wonder3d, delta_path, schedule, monkeypatch):
        from wonder3d_models import Memory

        fast = apply_delta(wonder3d, delta_name=delta_path.name, partial=True)
        memory = Memory(monkeypatch)
        assert memory.sample(fast, plenty=True, cfg=1.0, sigmas=schedule(fast)).isfinite().all()
        assert memory.rows == [12] * 4
        assert memory.timesteps == [1000, 750, 500, 250]

    def test_it_can_be_saved_and_loaded_again(self, comfyui, run, folder, apply_delta, wonder3d, delta_path, weights):
        fast = apply_delta(wonder3d, delta_name=delta_path.name, partial=True)
        run("ModelSave", model=fast, filename_prefix="diffusion_models/wonder3d-fast")
        (saved,) = (comfyui.base / "output" / "diffusion_models").glob("wonder3d-fast*.safetensors")
        saved = saved.rename(folder / saved.name)
        again = weights.loaded(run("Wonder3DLoader", unet_name=saved.name)[0])
        weights.assert_same(again, weights.loaded(fast), rtol=2e-3, atol=1e-4)  # stored in half precision


@pytest.fixture(scope="module")
def models(comfyui, tmp_path_factory):
    from wonder3d_models import small_clip_vision, small_vae

    return {"clip_vision": small_clip_vision(tmp_path_factory.mktemp("clip")), "vae": small_vae()}


class TestConditioning:
    @pytest.fixture
    def image(self):
        return torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))

    def test_what_it_gives(self, run, core, models, image):

        mask = torch.zeros(1, 96, 128)
        mask[:, 20:60, 30:100] = 1
        positive, negative, latent = run("Wonder3DConditioning", image=image, mask=mask, **models)
        assert latent["samples"].shape == (12, 4, 32, 32)
        assert not latent["samples"].any()
        picture = core("views.twelve_views").on_white(image, mask)
        ((context, options),) = positive
        embedding = models["clip_vision"].encode_image(picture)["image_embeds"]
        assert torch.allclose(context, embedding.expand(12, 1, -1), atol=1e-5)
        seen = options["concat_latent_image"]
        assert torch.allclose(seen, models["vae"].encode(picture).expand(12, -1, -1, -1), atol=1e-5)
        ((context, options),) = negative
        assert context.shape == (12, 1, 768)
        assert not context.any()
        assert options["concat_latent_image"].shape == (12, 4, 32, 32)
        assert not options["concat_latent_image"].any()

    def test_several_pictures_have_twelve_rows_each(self, run, models, image):
        positive, _, latent = run("Wonder3DConditioning", image=torch.cat([image, image.flip(1)]), **models)
        context = positive[0][0]
        assert len(latent["samples"]) == len(context) == 24
        assert torch.equal(context[0], context[11])
        assert not torch.equal(context[11], context[12])
        alone = run("Wonder3DConditioning", image=image, **models)[0][0][0]
        assert torch.allclose(context[:12], alone, atol=1e-5)

    def test_another_image_encoder_is_refused(self, run, models, image, tmp_path):
        from wonder3d_models import small_clip_vision

        other = models | {"clip_vision": small_clip_vision(tmp_path, width=1024)}
        with pytest.raises(ValueError, match=r"gives 1024 numbers for a picture, expected CLIP ViT-L/14's 768: load"):
            run("Wonder3DConditioning", image=image, **other)


def test_views_come_apart_in_their_order_and_on_a_sheet(run, core):
    views = core("views.twelve_views").VIEWS

    images = torch.arange(24).div(24)[:, None, None, None].expand(-1, 64, 64, 3)
    colours, normals, sheet = run("Wonder3DViews", images=images)
    assert (normals[:, 0, 0, 0] * 24).round().tolist() == [*range(6), *range(12, 18)]
    assert (colours[:, 0, 0, 0] * 24).round().tolist() == [*range(6, 12), *range(18, 24)]
    assert len(sheet) == 2
    for page, first in zip(sheet, (0, 12), strict=True):
        cells = [page[40 + 72 * row + 32, 116 + 72 * column + 32] for row in (0, 1) for column in range(len(views))]
        shades = [round(float(cell[0] * 24), 0) for cell in cells]
        assert shades == [first + number for number in range(12)]
    with pytest.raises(ValueError, match="There are 11 pictures, expected 12"):
        run("Wonder3DViews", images=images[:11])
