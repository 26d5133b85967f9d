"""What must hold of a graph that ComfyUI's web page shows."""

from itertools import combinations

# The longest of what our nodes say when the example graphs run.
TEXTS = {
    "InstaFlowModelSampling": "Rectified flow: the UNet gets the timesteps 1000 (1 - i / steps). Use the sampler "
    "euler.\nInstaFlow: 1 step, CFG 1. 2-Rectified-Flow: 2 to 25 steps, CFG 1 to 2.",
    "PCMPhaseSchedule": "1000 904.762 750 513.158\nShift 3. For pcm_deterministic_4step_shift3, sampler euler, or "
    "pcm_stochastic_shift3, sampler lcm; CFG 1.2.\nThis model ignores grid, phases and end.",
    "PeRFlowApplyDelta": "4 steps or more, CFG 4.5 to 7.5\nSD1.5 difference, 686 tensors, F32, 3438 MB\n"
    "diff_eps, 4 windows",
    "PeRFlowExtractDelta": "perflow-sdxl-delta-rank64_00001_.safetensors, 790 MB, 70 s\n"
    "kept 37.03 % of the difference\n10.9 % of diffusion_model.label_emb.0.0\n15.3 % of diffusion_model.label_emb.0.2\n"
    "15.4 % of diffusion_model.time_embed.2\n"
    "27.9 % of diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj\n"
    "27.9 % of diffusion_model.input_blocks.7.1.transformer_blocks.3.ff.net.0.proj",
    "PeRFlowModelSampling": "velocity, 4 windows",
    "PeRFlowPromptToPrompt": "Edit 1: replace lighthouse to castle\nEdit 2: replace sunset to night\n"
    "Edit 3: refine, new: snowy; snowy times 2",
    "PeRFlowWindowSchedule": "1000 875 | 750 625 | 500 | 250",
}
PART = (  # of Model Sampling PeRFlow with edges
    "flow, 2 windows: sigma 1 0.94 0.875\nThis is a part of the path, and another model takes the rest: use Window "
    "Schedule for each of them."
)
BYPASSED = 4
ROUNDING = 2  # units of the graph: screen pixels come back a little off


def assert_as_drawn(page, graph):
    """It has every node, value and link of its file, no text is cut, nothing lies on another thing, no complaint."""
    nodes = page.nodes()
    assert not page.notices()
    assert not page.errors
    assert not [node["type"] for node in nodes if node["missing"]]
    assert all(node["elements"] == page.nodes2 for node in nodes)
    assert_values_in_place(graph, nodes)
    saved = page.saved()
    assert values_by_id(saved) == values_by_id(graph)
    assert not page.cut_texts()
    assert sorted(map(str, saved["links"])) == sorted(map(str, graph["links"]))
    assert_layout(nodes, page.groups())


def assert_room_for_texts(page):
    """The layout holds when our nodes show what they say as they run."""
    texts = {node["id"]: text_of(node) for node in page.nodes() if node["type"] in TEXTS}
    for key, text in texts.items():
        page.show_text(key, text)
    page.settle()
    for text in texts.values():
        assert page.page.get_by_text(text.splitlines()[0]).count()
    assert_layout(page.nodes(), page.groups())


def text_of(node):
    values = {widget["name"]: widget["value"] for widget in node["widgets"]}
    if node["type"] == "PeRFlowModelSampling" and values["edges"]:
        return PART
    keeps_all = node["type"] == "PeRFlowExtractDelta" and not (values["rank"] or values["energy"])
    lines = TEXTS[node["type"]].splitlines()
    return "\n".join(lines[:2] if keeps_all else lines)


def values_by_id(graph):
    return {int(node["id"]): node.get("widgets_values", []) for node in graph["nodes"]}


def assert_values_in_place(graph, nodes):
    shown = {node["id"]: [widget for widget in node["widgets"] if widget["saved"]] for node in nodes}
    assert {key: [widget["value"] for widget in widgets] for key, widgets in shown.items()} == values_by_id(graph)
    bypassed = {int(node["id"]) for node in graph["nodes"] if node["mode"] == BYPASSED}
    for key in shown.keys() - bypassed:  # what a bypassed node names may be what its user makes later
        for widget in shown[key]:
            assert widget["options"] is None or widget["value"] in widget["options"], widget["name"]


def assert_layout(nodes, groups):
    """No node on another, and every node that touches a group wholly inside it, at the sizes the page gives them."""
    on_another = [(one, other) for one, other in combinations(nodes, 2) if overlap(one["box"], other["box"])]
    on_an_edge = [
        (node, group)
        for node in nodes
        for group in groups
        if overlap(node["box"], group["box"]) and not inside(node["box"], group["box"])
    ]
    assert not [[(thing["title"], thing["box"]) for thing in pair] for pair in (*on_another, *on_an_edge)]


def overlap(one, other):
    return all(one[i] + ROUNDING < other[i + 2] and other[i] + ROUNDING < one[i + 2] for i in (0, 1))


def inside(box, frame):
    return all(box[i] + ROUNDING >= frame[i] and box[i + 2] - ROUNDING <= frame[i + 2] for i in (0, 1))
