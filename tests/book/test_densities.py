"""Moments of densities against quadrature and sums of the definitions."""

import mpmath as mp
import pytest
import sympy as sp

from klapprox.book.densities import FAMILIES, DensityPair, integral_of_exp

VALUES = {
    "normal": ((0.3, 1.2), (-0.5, 0.9)),
    "Laplace": ((0, 1), (1.5, 0.75)),
    "uniform": ((0, 1), (-0.5, 2)),
    "exponential": ((1.5,), (2,)),
    "gamma": ((2.5, 1.5), (4, 1)),
    "beta": ((2, 3.5), (3, 1.5)),
    "Bernoulli": ((0.3,), (0.6,)),
    "geometric": ((0.3,), (0.6,)),
    "Poisson": ((2,), (3,)),
}
ENDS = {
    "normal": [-mp.inf, -1, 0, 1, mp.inf],
    "Laplace": [-mp.inf, 0, 1.5, mp.inf],
    "uniform": [0, 1],
    "beta": [0, 0.5, 1],
}


def moment_by_definition(family, laws, power, logs):
    """Return E_q[r^power (log r)^logs] as an integral or a sum."""
    log_density, x, domain = FAMILIES[family]
    log_q, log_p = (sp.lambdify(x, log_density(x, *law), "mpmath") for law in laws)

    def term(t):
        log_r = log_p(t) - log_q(t)
        return mp.exp(log_q(t) + power * log_r) * log_r**logs

    if domain == sp.S.Naturals0:
        return sum(term(mp.mpf(k)) for k in range(300))
    if isinstance(domain, sp.FiniteSet):
        return sum(term(mp.mpf(int(k))) for k in domain)
    return mp.quad(term, ENDS.get(family, [0, 1, 5, 20, mp.inf]))


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_the_definition(family):
    laws = [[sp.Rational(str(v)) for v in law] for law in VALUES[family]]
    pair = DensityPair.of(family, *laws)
    for power, logs in ((0, 0), (0, 1), (1, 1), (0, 2), (sp.Rational(1, 2), 1)):
        wanted = moment_by_definition(family, laws, float(power), logs)
        found = float(sp.N(pair.moment(power, logs)))
        assert found == pytest.approx(float(wanted), rel=1e-10, abs=1e-12)
    assert sp.simplify(pair.kl + pair.moment(0, 1)) == 0
    assert sp.simplify(pair.reverse_kl - pair.moment(1, 1)) == 0


def test_names_of_the_moments():
    a, room = sp.symbols("a room", positive=True)
    pair = DensityPair.of("exponential", (a,), ((a + room) / 2,))  # rates a and b, 2b - a = room
    assert sp.simplify(pair.chi_squared - (a - room) ** 2 / (4 * a * room)) == 0
    assert sp.simplify(pair.jeffreys - (a - room) ** 2 / (2 * a * (a + room))) == 0
    assert sp.simplify(pair.optimal_lambda - 2 * room / (a + room)) == 0
    assert sp.simplify(pair.variance_of_log_ratio - ((room - a) / (2 * a)) ** 2) == 0


def test_what_has_no_rule_is_refused():
    x = sp.Symbol("x", real=True)
    with pytest.raises(ValueError, match="not linear"):
        integral_of_exp(-(x**4), x, sp.S.Reals)
    with pytest.raises(ValueError, match="no rule"):
        integral_of_exp(-(x**2), x, sp.Interval.open(0, sp.oo))
    with pytest.raises(ValueError, match="larger"):
        DensityPair.of("Laplace", (sp.Symbol("m"), 1), (0, 1))
