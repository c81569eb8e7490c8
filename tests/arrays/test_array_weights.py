"""Weights that are differentiated or not, and straight-through, against the proved coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import klapprox as kl
from klapprox.exact.policies import COEFFICIENTS

RNG = np.random.Generator(np.random.PCG64(80))
LOG_PI, LOG_REF, LOG_OLD = -1 - RNG.random((3, 40))
LOG_R, LOG_W = LOG_REF - LOG_PI, LOG_PI - LOG_OLD
PLACEMENT = {False: "weighted loss", True: "detached weight"}


def by_torch(loss):
    log_pi = torch.tensor(LOG_PI, requires_grad=True)
    loss(log_pi, torch.tensor(LOG_REF), torch.tensor(LOG_OLD)).sum().backward()
    return log_pi.grad.numpy()


def by_jax(loss):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in (LOG_PI, LOG_REF, LOG_OLD)]
        return np.asarray(jax.grad(lambda x: loss(x, *arrays[1:]).sum())(arrays[0]))


@pytest.mark.parametrize("gradient", [by_torch, by_jax])
@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_is_the_coefficient_of_the_theorem(gradient, name, detach):
    k = getattr(kl, name)
    found = gradient(
        lambda log_pi, log_ref, log_old: kl.weighted(
            k(log_ref - log_pi), log_pi - log_old, detach=detach
        )
    )
    wanted = COEFFICIENTS[name, PLACEMENT[detach]](LOG_R, LOG_W)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("gradient", [by_torch, by_jax])
def test_straight_through_has_the_gradient_of_the_other(gradient):
    found = gradient(
        lambda log_pi, log_ref, _: kl.straight_through(
            kl.k3(log_ref - log_pi), kl.k2(log_ref - log_pi)
        )
    )
    np.testing.assert_allclose(found, -LOG_R, rtol=1e-12)
