"""What the first graph's nodes tell while it runs, what the server refuses, and that it goes on after errors."""

import pytest


def test_the_page_and_the_api_hear_of_the_steps(server, picture, prompt, find_id):
    """The picture is there, after the official timesteps, which the node and the API both tell."""
    server.forget()  # nodes that ran before say nothing
    events = []
    pixels, outputs = picture(prompt, lambda kind, data: events.append((kind, data)))
    assert pixels.shape == (128, 128, 3)
    assert pixels.std() > 5
    schedule, delta = find_id(prompt, "PeRFlowWindowSchedule"), find_id(prompt, "PeRFlowApplyDelta")
    assert outputs[schedule]["text"] == ["1000 | 750 | 500 | 250"]
    assert outputs[delta]["text"][0].startswith("4 steps or more, CFG 4.5 to 7.5\nSD1.5 difference, ")
    shown = {data["node"]: data["text"] for kind, data in events if kind == "progress_text"}
    assert shown[schedule] == "1000 | 750 | 500 | 250"
    assert shown[delta].endswith("diff_eps, 4 windows")
    sampler = find_id(prompt, "SamplerCustomAdvanced")
    steps = [(data["value"], data["max"]) for kind, data in events if kind == "progress" and data["node"] == sampler]
    assert steps[-1] == (4, 4)  # the server leaves out steps that follow one another within 0.1 s
    assert steps == sorted(steps)


def test_plain_ksampler_gives_the_same_picture(picture, prompt, find, find_id):
    """And the steps that it was given stand on the node of the delta, which is not run again for that."""
    custom, _ = picture(prompt)
    guider, noise = find(prompt, "CFGGuider")["inputs"], find(prompt, "RandomNoise")["inputs"]
    sampler = find_id(prompt, "SamplerCustomAdvanced")
    prompt[sampler] = {
        "class_type": "KSampler",
        "inputs": {
            "model": guider["model"],
            "positive": guider["positive"],
            "negative": guider["negative"],
            "cfg": guider["cfg"],
            "seed": noise["noise_seed"],
            "latent_image": prompt[sampler]["inputs"]["latent_image"],
            "steps": 4,
            "sampler_name": "euler",
            "scheduler": "karras",
            "denoise": 1.0,
        },
    }
    shown = {}

    def hear(kind, data):
        if kind == "progress_text":
            shown[data["node"]] = data["text"]

    plain, _ = picture(prompt, hear)
    assert abs(plain - custom).max() <= 1
    text = shown[find_id(prompt, "PeRFlowApplyDelta")].splitlines()
    assert [line.strip() for line in text[-2:]] == [
        "diff_eps, 4 windows",
        "steps aligned to the windows: 1000 | 750 | 500 | 250",
    ]


def test_fewer_steps_than_windows_are_told(picture, prompt, find, find_id):
    find(prompt, "PeRFlowWindowSchedule")["inputs"]["steps"] = 2
    _, outputs = picture(prompt)
    (text,) = outputs[find_id(prompt, "PeRFlowWindowSchedule")]["text"]
    assert text.startswith("1000 | 500\n2 steps for 4 windows: a step crosses a bend of the path, so the picture is")


@pytest.mark.parametrize(
    ("node", "inputs", "reason"),
    [
        ("PeRFlowWindowSchedule", {"steps": 0}, "smaller than min"),
        ("PeRFlowWindowSchedule", {"denoise": 1.5}, "bigger than max"),
        ("PeRFlowApplyDelta", {"windows": 1000}, "bigger than max"),
        ("PeRFlowApplyDelta", {"delta_name": "gone.safetensors"}, "not in list"),
        ("PeRFlowSampler", {"solver": "rk4"}, "not in list"),
    ],
)
def test_the_server_refuses_what_the_schema_forbids(server, prompt, find, node, inputs, reason):
    from environment import UserError

    find(prompt, node)["inputs"] |= inputs
    with pytest.raises(UserError, match=reason):
        server.queue(prompt)


def test_errors_reach_the_page_and_the_server_goes_on(server, picture, prompt, find, find_id):
    from environment import UserError

    schedule = find(prompt, "PeRFlowWindowSchedule")["inputs"]
    model, schedule["model"] = schedule["model"], [find_id(prompt, "CheckpointLoaderSimple"), 0]
    with pytest.raises(UserError, match="Window Schedule got a model without time windows"):
        server.run(prompt)
    schedule["model"] = model
    pixels, _ = picture(prompt)
    assert pixels.std() > 5
