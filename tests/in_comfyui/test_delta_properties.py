"""Any name or shape that does not belong is refused by name; any that is supported gives the same weights."""

import json

import pytest
from damage import Draft
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

TENSORS = (
    "conv_in.weight",
    "conv_in.bias",
    "time_embedding.linear_1.weight",
    "down_blocks.0.resnets.0.norm1.weight",
    "mid_block.attentions.0.proj_in.weight",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2.bias",
    "up_blocks.0.resnets.1.conv_shortcut.weight",
    "conv_norm_out.weight",
    "conv_out.weight",
)
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "unet.", "")
LAYOUT_MARKS = ("lora", "hada", "lokr", "oft_", ".a1.", ".diff")  # a name with one makes it a file of another kind
MORE_THAN_ENOUGH = 4_000_000  # numbers in a tensor

names = st.sampled_from(TENSORS)
seeds = st.randoms(use_true_random=True)  # one seed for the hundreds of names of a file, in place of as many draws
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
thorough = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.filter_too_much]
)


@pytest.fixture(scope="module")
def target(comfyui, unet_file):
    from refusal import base_model

    with base_model(comfyui, unet_file) as target:
        yield target


@st.composite
def misspelt(draw, name):
    """A name with one character left out, put in or changed; or something else altogether."""
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.one_of(st.sampled_from("._0w/ \n"), st.characters(exclude_categories=["Cs"])))
    return draw(
        st.sampled_from(
            [name[:at] + name[at + 1 :], name[:at] + letter + name[at:], name[:at] + letter + name[at + 1 :]]
        )
        | words
    )


def supported(target, name):
    """Whether a model's tensor may be called that."""
    bare = next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
    return bare in target.names or f"diffusion_model.{bare}" in target.weights


@thorough
@given(data=st.data(), name=names, partial=st.booleans())
def test_any_renaming_of_one_tensor_is_refused_by_its_name(target, core, data, name, partial):
    other = data.draw(misspelt(name))
    assume(not supported(target, other) and other != "__metadata__")
    assume(not any(mark in other for mark in LAYOUT_MARKS))
    text = target.refusal(target.delta().with_names(lambda key: other if key == name else key), partial=partial)
    shown = core("errors").shown
    assert " ".join(f"has 1 tensor ({shown(other)}), which the model does not have".split()) in text


@thorough
@given(name=names, shape=st.lists(st.integers(0, 2000) | st.sampled_from([1, 3, 4, 320, 1280]), max_size=6))
def test_any_reshaping_of_one_tensor_is_refused_by_its_name(target, name, shape):
    numbers = 1
    for size in shape:
        numbers *= size
    assume(numbers <= MORE_THAN_ENOUGH and tuple(shape) != target.shapes[name])
    text = target.refusal(target.delta().with_shape(name, *shape))
    assert f"tensor {name} has shape {'x'.join(map(str, shape)) or '()'}, expected" in text


@thorough
@given(name=names, where=st.floats(0, 1), value=st.sampled_from(["nan", "inf", "-inf"]))
def test_nan_and_inf_anywhere_are_refused_by_the_tensors_name(target, name, where, value):
    text = target.refusal(target.delta().with_number(name, float(value), where))
    assert f"tensor {name} holds NaN or Inf" in text


@thorough
@given(share=st.floats(0, 1, exclude_max=True))
def test_any_truncation_is_refused(target, share):
    def write(path):
        with target.delta().write(path).open("r+b") as file:
            file.truncate(int(share * path.stat().st_size))

    assert "cannot be read as .safetensors" in target.refusal(write)


@thorough
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_damaged_byte_of_the_header_is_refused(target, share, flip):
    draft = target.delta()
    header = bytearray(json.dumps(draft.header(), separators=(",", ":")).encode())
    header[int(share * len(header))] ^= flip
    target.refusal(lambda path: draft.write(path, bytes(header)))


@thorough
@given(gone=st.sets(names, min_size=1))
def test_any_missing_tensors_are_counted(target, gone):
    text = target.refusal(target.delta().without(*gone))
    assert f"lacks {len(gone)} tensor" in text
    assert min(target.names[name] for name in gone) in text


@pytest.fixture(scope="module")
def marked(target):
    """A delta with another number in every tensor, and by ComfyUI's names what number that is."""
    draft = target.delta()
    marks = {name: (i + 1) / 1024 for i, name in enumerate(target.shapes)}
    for name, mark in marks.items():
        draft = draft.with_number(name, mark)
    return draft, {target.names[name]: mark for name, mark in marks.items()}


def assert_marks_arrive(target, draft, marks):
    patches = target.apply(draft).result[0].patches
    found = {key: patch[1][0].max().item() for key, ((_, patch, *_),) in patches.items()}
    assert found == marks


@thorough
@given(random=seeds)
def test_any_mix_of_supported_names_gives_the_same_weights(target, marked, random):
    """Every tensor in a layout and with a prefix of its own."""
    draft, marks = marked

    def rename(name):
        bare = target.names[name].removeprefix("diffusion_model.")
        return random.choice(PREFIXES) + random.choice([name, bare])

    assert_marks_arrive(target, draft.with_names({name: rename(name) for name in target.shapes}.__getitem__), marks)


@thorough
@given(random=seeds)
def test_any_mix_of_supported_module_names_gives_the_same_weights(target, marked, random):
    """As .diff and .diff_b, every module by a name of its own."""
    draft, marks = marked
    modules = {}

    def rename(name):
        module, _, kind = name.rpartition(".")
        ours = target.names[name].rpartition(".")[0]
        flat, ours_flat = module.replace(".", "_"), ours.removeprefix("diffusion_model.").replace(".", "_")
        choices = [ours, module, f"unet.{module}", f"lora_unet_{flat}", f"lora_unet_{ours_flat}", f"lycoris_{flat}"]
        if module not in modules:
            modules[module] = random.choice(choices)
        return f"{modules[module]}.diff" + "_b" * (kind == "bias")

    assert_marks_arrive(target, draft.with_names({name: rename(name) for name in target.shapes}.__getitem__), marks)


@thorough
@given(names=st.permutations(TENSORS))
def test_the_order_of_tensors_does_not_matter(target, marked, names):
    draft, marks = marked
    rest = [name for name in target.shapes if name not in names]
    tensors = {name: draft.tensors[name] for name in [*names, *rest]}
    assert_marks_arrive(target, Draft(tensors, draft.numbers), marks)
