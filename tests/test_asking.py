"""What is recorded with the answers of one pass is right for the numbers of another, or says that it is not."""

import pytest
import torch

from lipref.linalg import asking, cayley, polar, sylvester
from lipref.linalg.asking import Answers, allows, decide, places
from lipref.linalg.newton import _WhitenedByProducts, whitened_by_products
from lipref.linalg.polar import polar_factor


def recorded(function, before, now, room=1):
    """The result for ``now`` on the way that ``before`` took, and whether that holds."""
    answers = Answers(room)
    with answers.noted():
        function(before)
    with answers.recorded():
        result = function(now)
    return result, bool(answers.hold(torch.tensor(1.0)))


def relative(one, other):
    one, other = one.detach(), other.detach()
    return float((one - other).norm() / other.norm())


def frames(spread, seed):
    """Tall matrices whose singular values lie within 1 / spread and 1."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 12, 8, generator=generator))[0]
    p = torch.linalg.qr(torch.randn(3, 8, 8, generator=generator))[0]
    return 0.3 * (q * torch.linspace(1 / spread, 1, 8)) @ p


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("before", [1.0, 1.3, 3.0, 30.0])
@pytest.mark.parametrize("now", [1.0, 1.01, 1.4, 3.2, 25.0, 100.0])
def test_polar_factors(before, now, room):
    a = frames(now, 1)
    found, holds = recorded(polar._found_on_device, frames(before, 0), a, room)
    assert holds or now > (before if room == 1 else 2 * before)
    if holds:
        assert relative(found, polar_factor(a.double()).float()) < 1e-5


def wide(longest, seed):
    """As a head's after some training: most singular values alike, few long."""
    generator = torch.Generator().manual_seed(seed)
    q, p = (torch.linalg.qr(torch.randn(2, 120, 120, generator=generator))[0] for _ in range(2))
    return (q * torch.cat((torch.linspace(longest, 0.7 * longest, 2), torch.linspace(1, 1.2, 118)))) @ p


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("before", [30.0, 200.0])
@pytest.mark.parametrize("now", [1.0, 10.0, 31.0, 210.0, 1000.0])
def test_polar_factors_of_few_long_directions(before, now, room):
    a = wide(before, 0)
    gram = a.mT @ a
    assert (polar._norm_scale(gram, 120) > polar.WIDE * polar._mean(gram)).all()
    found, holds = recorded(polar._found_on_device, a, wide(now, 1), room)
    assert holds or now > before
    if holds:
        left, _, right = torch.linalg.svd(wide(now, 1).double())
        assert relative(found, (left @ right).float()) < 1e-5


def test_a_little_more_spread_still_holds():
    """Weights move: their graphs should not be recorded at every step."""
    for spread in (1.0, 1.5, 3.0):
        assert recorded(polar._found_on_device, frames(spread, 0), frames(1.02 * spread, 1))[1]


@pytest.mark.parametrize("before", [0.5, 4.0])
@pytest.mark.parametrize("now", [0.5, 1.0, 4.0])
def test_inverses_of_shifted_matrices(before, now):
    def matrix(scale):
        a = scale * torch.randn(2, 30, 30, generator=torch.Generator().manual_seed(1)) / 30**0.5
        return torch.eye(30) + a - a.mT

    found, holds = recorded(cayley._on_device, matrix(before), matrix(now))
    assert holds == (before == 4.0 or now < 4.0)  # what was recorded without the Newton step is for small ones
    if holds:
        assert relative(found, torch.linalg.inv(matrix(now).double())) < 2e-6


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("before", [1.05, 3.0, 100.0])
@pytest.mark.parametrize("now", [1.0, 1.06, 2.0, 50.0, 1e4])
def test_sylvester_equations(before, now, room):
    def solve(spread):
        h = torch.diag_embed(torch.linspace(1 / spread, 1, 10)).expand(2, 10, 10)
        s = torch.randn(2, 10, 10, generator=torch.Generator().manual_seed(3))
        s = s - s.mT
        x, inverse = sylvester.skew_sylvester_on_device(h, s, invert=True)
        exact = s / (h.diagonal(dim1=-2, dim2=-1)[..., :, None] + h.diagonal(dim1=-2, dim2=-1)[..., None, :])
        return torch.stack((x, exact, inverse @ h))

    (found, exact, eye), holds = recorded(solve, before, now, room)
    assert holds or now > before
    assert not (holds and now > sylvester.FARTHEST)
    if holds:
        assert relative(found, exact) < 2e-5
        assert relative(eye, torch.eye(10).expand(2, 10, 10)) < 1e-4


def symbols(distance, seed):
    generator = torch.Generator().manual_seed(seed)
    eye = torch.eye(8, dtype=torch.complex64)
    return eye + distance / 8**0.5 * torch.randn(4, 8, 8, dtype=torch.complex64, generator=generator)


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("before", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("now", [0.0, 0.025, 0.1, 0.25, 0.9])
def test_whitened_matrices_and_their_gradients(before, now, room):
    some = symbols(1.0, 9)

    def both(v):
        v = v.clone().requires_grad_()
        q = _WhitenedByProducts.apply(v, 10, 1e-4)
        return torch.stack((q, torch.autograd.grad((q * some.conj()).real.sum(), v)[0]))

    v = symbols(now, 1)
    found, holds = recorded(both, symbols(before, 0), v, room)
    if now <= before:
        assert holds
    if holds:
        slow = v.to(torch.complex128).requires_grad_()
        q = whitened_by_products(slow, 10, 1e-4)
        gradient = torch.autograd.grad((q * some.conj()).real.sum(), slow)[0]
        assert relative(found[0], q.to(torch.complex64)) < 2e-5
        assert relative(found[1], gradient.to(torch.complex64)) < 1e-4


def test_the_long_way_is_always_allowed_and_a_shortcut_is_looked_at():
    yes, no = torch.tensor(True), torch.tensor(False)
    assert [recorded(allows, before, now) for before in (yes, no) for now in (yes, no)] == [
        (True, True), (True, False), (False, True), (False, True)
    ]  # fmt: skip


def test_questions_have_to_be_the_same():
    answers = Answers()
    with answers.noted():
        assert allows(torch.tensor(True))
    with pytest.raises(RuntimeError, match="1 questions were not asked"), answers.recorded():
        pass
    assert not asking.recording()

    def twice():
        with answers.recorded():
            allows(torch.tensor(True))
            allows(torch.tensor(True))

    with pytest.raises(RuntimeError, match="not asked before"):
        twice()
    assert not asking.recording()


def test_outside_of_any_pass_the_device_is_asked():
    assert decide([torch.tensor(2.0), torch.tensor(3)], sum) == 5.0
    assert places(torch.tensor([True, False, True])).tolist() == [0, 2]


def test_places_are_recorded_where_there_are_none():
    nowhere, somewhere = torch.tensor([False, False]), torch.tensor([False, True])
    found, holds = recorded(places, nowhere, nowhere)
    assert holds
    assert len(found) == 0
    assert not recorded(places, nowhere, somewhere)[1]
    with pytest.raises(RuntimeError, match="shapes of what follows"):
        recorded(places, somewhere, nowhere)


def test_nan_holds_for_nothing():
    assert not recorded(polar._found_on_device, frames(1.0, 0), frames(1.0, 1) * float("nan"))[1]
