"""TripoSR's pack, where a checkout of it is at hand: its nodes are those that the graph was drawn from."""

import pytest
import shipped_graphs as graphs


@pytest.fixture(scope="module")
def info(triposr_server):
    return triposr_server.object_info()


@pytest.mark.parametrize("kind", sorted(graphs.TRIPOSR_INTERFACE))
def test_the_interface_is_the_packs(info, kind):
    data = graphs.with_triposr({"CheckpointLoaderSimple": info["CheckpointLoaderSimple"]})[kind]
    assert data == {name: info[kind][name] for name in data}
