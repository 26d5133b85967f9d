"""Wonder3D's twelve rows: what each is told of its camera, and which rows read each other."""

import pytest
import torch

from perflow_core.views.twelve_views import (
    ANGLES,
    DOMAINS,
    ROWS,
    VIEWS,
    class_vectors,
    domains,
    domains_in_one_row,
    domains_in_two_rows,
    each_twelve_times,
    views_in_one_row,
)


def test_class_vectors_are_the_references(golden):
    reference = golden("wonder3d_tiny")
    expected = torch.tensor(reference["class_embed_input"], dtype=torch.float64)
    assert class_vectors().dtype == torch.float64
    assert (class_vectors() - expected).abs().max() < 1e-9


def test_angles_are_half_precision_roundings():
    """They came to the official code as such; other digits would be other numbers in half precision."""
    for angle in (angle for pair in ANGLES for angle in pair):
        assert abs(torch.tensor(angle).half().item() - angle) < 5e-4


def test_a_view_is_told_the_same_in_both_domains_but_for_the_domain():
    normals, colours = class_vectors().split(len(VIEWS))
    differ = (normals != colours).any(0)
    assert differ.tolist() == [False, False, False, True, True] * 2


def numbered(objects: int = 2, tokens: int = 3) -> torch.Tensor:
    """[12 n, N, 4]: object, domain, view and token written into each token."""
    counts = torch.cartesian_prod(*(torch.arange(n) for n in (objects, len(DOMAINS), len(VIEWS), tokens)))
    return counts.reshape(ROWS * objects, tokens, 4)


def test_views_in_one_row():
    rows = views_in_one_row(numbered())
    assert rows.shape == (4, 18, 4)
    for row in rows:
        thing, domain, view, token = row.unbind(-1)
        assert len(set(thing.tolist())) == len(set(domain.tolist())) == 1
        assert list(zip(view.tolist(), token.tolist(), strict=True)) == [(v, t) for v in range(6) for t in range(3)]


def test_domains_in_one_row_and_back():
    rows = domains_in_one_row(numbered())
    assert rows.shape == (12, 6, 4)
    for row in rows:
        thing, domain, view, token = row.unbind(-1)
        assert len(set(thing.tolist())) == len(set(view.tolist())) == 1
        assert list(zip(domain.tolist(), token.tolist(), strict=True)) == [(d, t) for d in range(2) for t in range(3)]
    assert torch.equal(domains_in_two_rows(rows), numbered())


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v


def test_attention_over_folded_rows_is_that_with_gathered_keys():
    """As the authors write it: each row's queries, and the keys and values of every row that it reads."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 24, 5, 8, dtype=torch.float64, generator=generator)
    folds = {
        views_in_one_row: lambda row: range(row // 6 * 6, row // 6 * 6 + 6),
        domains_in_one_row: lambda row: (row - row % 12 + row % 6, row - row % 12 + row % 6 + 6),
    }
    for fold, read in folds.items():
        found = attention(fold(q), fold(k), fold(v))
        found = found.reshape(q.shape) if fold is views_in_one_row else domains_in_two_rows(found)
        for row in range(24):
            keys, values = (torch.cat([x[other] for other in read(row)]) for x in (k, v))
            assert torch.allclose(found[row], attention(q[row], keys, values), atol=1e-12)


def test_pictures_are_taken_apart_object_by_object():
    pictures = torch.arange(24)[:, None]
    normals, colours = domains(pictures)
    assert normals.flatten().tolist() == [*range(6), *range(12, 18)]
    assert colours.flatten().tolist() == [*range(6, 12), *range(18, 24)]


@pytest.mark.parametrize("count", [0, 1, 6, 13])
def test_another_number_of_pictures_is_refused(count):
    with pytest.raises(ValueError, match=f"There are {count} pictures, expected 12 for each object"):
        domains(torch.zeros(count, 4, 4, 3))


def test_each_twelve_times():
    assert each_twelve_times(torch.tensor([1, 2])).tolist() == [1] * 12 + [2] * 12
