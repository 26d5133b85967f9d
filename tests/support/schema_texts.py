"""The texts of nodes' schemas in the form of nodeDefs.json, which holds the translations."""


def schema_texts(nodes: dict) -> dict:
    """`nodes`: node id -> what /object_info says of it."""
    return {node: node_texts(info) for node, info in nodes.items()}


def node_texts(info: dict) -> dict:
    inputs = {}
    for kind in ("required", "optional"):
        for key, (_, said) in info["input"].get(kind, {}).items():
            inputs[key] = {"name": said.get("display_name") or key, "tooltip": said.get("tooltip")}
            if said.get("control_after_generate"):
                inputs["control_after_generate"] = {"name": "control after generate"}
    outputs = {}
    for i, (kind, name, tooltip) in enumerate(
        zip(info["output"], info["output_name"], info["output_tooltips"], strict=True)
    ):
        named = {"name": name} if name != kind else {}  # a name that is the type is translated by ComfyUI itself
        explained = {"tooltip": tooltip} if tooltip else {}
        if named or explained:
            outputs[str(i)] = named | explained
    texts = {"display_name": info["display_name"], "description": info["description"], "inputs": inputs}
    return texts | ({"outputs": outputs} if outputs else {})


def flat(tree: dict, path: tuple[str, ...] = ()):
    """(path, text) of every text in it."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, key))
        else:
            yield (*path, key), value
