"""Closed forms against the textbook's formulas in 60 digits and more, laws close and far apart."""

import math

import mpmath
import numpy as np
import pytest

from klapprox.exact.families import (
    Bernoulli,
    Beta,
    Categorical,
    Exponential,
    Gamma,
    Geometric,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    moments,
)

DIGITS = 700  # 60 remain of a difference of numbers near 1e300 that agree in 300 digits
TOLERANCE = 1e-14


def of_log_ratio(terms):
    """Return KL, E r - 1 squared, and the central moments 2, 3, 4 of (probability, log r)."""
    terms = [(w, x) for w, x in terms]
    mean = mpmath.fsum(w * x for w, x in terms)
    chi = mpmath.fsum(w * mpmath.expm1(x) ** 2 for w, x in terms)
    return -mean, chi, [mpmath.fsum(w * (x - mean) ** n for w, x in terms) for n in (2, 3, 4)]


def from_cumulants(second, third, fourth):
    return [second, third, fourth + 3 * second**2]


def normal(q, p):
    m, s, n, t = map(mpmath.mpf, (q.mean, q.sd, p.mean, p.sd))
    kl = mpmath.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - mpmath.mpf(1) / 2
    room = 2 * s**2 - t**2
    chi = mpmath.inf
    if room > 0:
        chi = s**2 / (t * mpmath.sqrt(room)) * mpmath.exp((m - n) ** 2 / room) - 1
    a, b = (1 - (s / t) ** 2) / 2, s * (n - m) / t**2
    cumulants = 2 * a**2 + b**2, 8 * a**3 + 6 * a * b**2, 48 * a**2 * (a**2 + b**2)
    return kl, chi, from_cumulants(*cumulants)


def exponential(q, p):
    a, b = mpmath.mpf(q.rate), mpmath.mpf(p.rate)
    kl = b / a - 1 - mpmath.log(b / a)
    chi = b**2 / (a * (2 * b - a)) - 1 if 2 * b > a else mpmath.inf
    return kl, chi, [c * (1 - b / a) ** n for n, c in ((2, 1), (3, 2), (4, 9))]


def poisson(q, p):
    a, b = mpmath.mpf(q.mean), mpmath.mpf(p.mean)
    step = mpmath.log(b / a)
    kl = b - a - a * step
    chi = mpmath.exp((b - a) ** 2 / a) - 1
    return kl, chi, from_cumulants(*(a * step**n for n in (2, 3, 4)))


def bernoulli(q, p):
    a, b = mpmath.mpf(q.probability), mpmath.mpf(p.probability)
    return of_log_ratio([(a, mpmath.log(b / a)), (1 - a, mpmath.log((1 - b) / (1 - a)))])


def categorical(q, p):
    pairs = [(mpmath.mpf(a), mpmath.mpf(b)) for a, b in zip(q, p, strict=True)]
    return of_log_ratio([(a, mpmath.log(b / a)) for a, b in pairs])


def geometric(q, p):
    a, b = mpmath.mpf(q.probability), mpmath.mpf(p.probability)
    step = mpmath.log((1 - b) / (1 - a))
    kl = -mpmath.log(b / a) - (1 - a) / a * step
    rest = (1 - b) ** 2 / (1 - a)
    chi = b**2 / a / (1 - rest) - 1 if rest < 1 else mpmath.inf
    c = 1 - a
    failures = c / a**2, c * (2 - a) / a**3, 9 * c**2 / a**4 + c / a**2
    return kl, chi, [m * step**n for n, m in zip((2, 3, 4), failures, strict=True)]


def laplace(q, p):
    """Return integrals over the three pieces, log r = c + k u on each, in units of q's scale."""
    z = abs(mpmath.mpf(p.mean) - q.mean) / q.scale
    ratio = mpmath.mpf(q.scale) / p.scale

    def integral(degree, rate, low, high):  # of u^degree e^{-rate u}
        total = mpmath.mpf(0)
        for end, sign in ((low, 1), (high, -1)):
            if end != mpmath.inf:
                terms = [
                    end**k
                    * mpmath.factorial(degree)
                    / mpmath.factorial(k)
                    / rate ** (degree - k + 1)
                    for k in range(degree + 1)
                ]
                total += sign * mpmath.exp(-rate * end) * mpmath.fsum(terms)
        return total

    # (constant, slope, low, high) of log r - log(ratio); left of 0 in -u.
    pieces = [
        (-ratio * z, 1 - ratio, 0, mpmath.inf),
        (-ratio * z, 1 + ratio, 0, z),
        (ratio * z, 1 - ratio, z, mpmath.inf),
    ]

    def moment(n, centre):
        return mpmath.fsum(
            mpmath.binomial(n, k)
            * slope**k
            * (c - centre) ** (n - k)
            * integral(k, 1, low, high)
            / 2
            for c, slope, low, high in pieces
            for k in range(n + 1)
        )

    mean = moment(1, 0)
    kl = -mean - mpmath.log(ratio)
    chi = mpmath.inf
    if 2 * ratio > 1:
        # E r²: on each piece ratio² e^{2c} ∫ e^{(2 slope - 1) u}/2.
        chi = -1 + mpmath.fsum(
            ratio**2 * mpmath.exp(2 * c) * integral(0, 1 - 2 * slope, low, high) / 2
            for c, slope, low, high in pieces
        )
    return kl, chi, [moment(n, mean) for n in (2, 3, 4)]


def of_normaliser(steps, log_normaliser):
    """Return the same for a law with this log-normaliser A at (parameter, step) pairs."""
    at = [[mpmath.mpf(a) + k * (mpmath.mpf(b) - a) for a, b in steps] for k in (0, 1, 2)]
    value, slope, cumulants = log_normaliser(steps)
    chi = mpmath.inf
    if min(at[2]) > 0:
        chi = mpmath.expm1(value(at[2]) - 2 * value(at[1]) + value(at[0]))
    return value(at[1]) - value(at[0]) - slope, chi, from_cumulants(*cumulants)


def gamma(q, p):
    def parts(steps):
        (a, b), (rate, p_rate) = ((mpmath.mpf(x), mpmath.mpf(y)) for x, y in steps)
        d, e = b - a, p_rate - rate
        slope = d * (mpmath.digamma(a) - mpmath.log(rate)) - a * e / rate
        cumulants = [
            d**n * mpmath.polygamma(n - 1, a)
            - n * d * (-1) ** n * mpmath.factorial(n - 2) * (e / rate) ** (n - 1)
            + a * (-1) ** n * mpmath.factorial(n - 1) * (e / rate) ** n
            for n in (2, 3, 4)
        ]
        return (lambda at: mpmath.loggamma(at[0]) - at[0] * mpmath.log(at[1])), slope, cumulants

    return of_normaliser(((q.shape, p.shape), (q.rate, p.rate)), parts)


def beta(q, p):
    def parts(steps):
        (a, p_a), (b, p_b) = ((mpmath.mpf(x), mpmath.mpf(y)) for x, y in steps)
        three = ((1, a, p_a - a), (1, b, p_b - b), (-1, a + b, p_a + p_b - a - b))
        slope, *cumulants = (
            mpmath.fsum(s * d**n * mpmath.polygamma(n - 1, x) for s, x, d in three)
            for n in (1, 2, 3, 4)
        )

        def value(at):
            return mpmath.loggamma(at[0]) + mpmath.loggamma(at[1]) - mpmath.loggamma(sum(at))

        return value, slope, cumulants

    return of_normaliser(((q.a, p.a), (q.b, p.b)), parts)


FORMULAS = {
    Normal: normal,
    Exponential: exponential,
    Poisson: poisson,
    Bernoulli: bernoulli,
    Geometric: geometric,
    Laplace: laplace,
    Gamma: gamma,
    Beta: beta,
}
SIGNED = {Normal: ("mean",), Laplace: ("mean",)}
PROBABILITIES = (Bernoulli, Geometric)


def parameter(rng, decades, of_probability):
    """Return a positive number of any size, or a probability as close to 0 or 1 as it may be."""
    value = 10.0 ** rng.uniform(-decades, decades)
    if not of_probability:
        return value
    value = 10.0 ** -abs(math.log10(value))
    return float(min(value, 0.5) if rng.random() < 0.5 else 1 - max(min(value, 0.5), 2.0**-53))


def pairs(family, seed, count):
    """Return laws of every size, with partners as close as 1e-14 and as far as there are."""
    rng = np.random.Generator(np.random.PCG64(seed))
    names = list(family.__dataclass_fields__)
    found = []
    for i in range(count):
        decades = (
            (1.0, 12.0, 130.0)[i % 3] if family not in PROBABILITIES else (1.0, 12.0, 100.0)[i % 3]
        )
        if family is Poisson:
            decades = min(decades, 12.0)
        q, p = {}, {}
        for name in names:
            sign = rng.choice((-1.0, 1.0)) if name in SIGNED.get(family, ()) else 1.0
            q[name] = sign * parameter(rng, decades, family in PROBABILITIES)
            kind = (i // 3) % 4
            if kind == 0:  # close
                step = float(10.0 ** rng.uniform(-15, -1) * rng.choice((-1, 1)))
                p[name] = q[name] * (1 + step)
            elif kind == 1:  # the same factor for all, and a little more
                common = found and 0.1 * ((i * 7919) % 13 - 6)
                p[name] = q[name] * math.exp((common or 0.3) + 1e-9 * rng.standard_normal())
            elif kind == 2:  # some way off
                p[name] = q[name] * math.exp(rng.standard_normal())
            else:
                p[name] = sign * parameter(rng, decades, family in PROBABILITIES)
            if family in PROBABILITIES and not 0 < p[name] < 1:
                p[name] = q[name] / 2
        found.append((family(**q), family(**p)))
    return found


def is_within(found, wanted, tolerance):
    """Whether this is the number, or infinite where the number is no float."""
    if mpmath.isinf(wanted) or wanted > np.finfo(float).max:
        return found == math.inf
    return abs(mpmath.mpf(found) - wanted) <= max(tolerance * abs(wanted), mpmath.mpf(1e-300))


@pytest.mark.parametrize("family", FORMULAS, ids=lambda family: family.__name__)
def test_divergences_and_spread_of_laws_close_and_far(family):
    of_gamma = family in (Gamma, Beta)
    finite = 0
    with mpmath.workdps(DIGITS):
        for q, p in pairs(family, 1, 24 if of_gamma else 120):
            kl, chi, (second, third, fourth) = FORMULAS[family](q, p)
            assert is_within(q.kl(p), kl, TOLERANCE), (q, p)
            allowed = TOLERANCE * (1 + (0 if mpmath.isinf(chi) else mpmath.log1p(chi)))
            assert is_within(q.chi_squared_from(p), chi, allowed), (q, p)
            found = q.central_moments(p)
            assert is_within(found.second, second, TOLERANCE), (q, p)
            if math.isfinite(found.fourth):
                finite += 1
                assert is_within(found.fourth, fourth, TOLERANCE), (q, p)
                error = abs(found.third - third)
                assert error <= TOLERANCE * (mpmath.sqrt(second * fourth) + 1e-300), (q, p)
    assert finite > 10


def check_moments(value, kl, reverse_kl, chi, second, third, fourth):
    """Assert the bounds that `moments` states for the variances."""
    var_k2 = (4 * kl**2 * second - 4 * kl * third + fourth - second**2) / 4
    scale = fourth + 6 * kl**2 * second + kl**4 + kl**2 + 4 * kl * abs(third)
    assert abs(value.var_k2 - var_k2) <= TOLERANCE * scale
    if chi < 1e290:
        var_k3 = chi + second - 2 * (kl + reverse_kl)
        scale = (1 + mpmath.log1p(chi)) * (chi + kl + reverse_kl + second)
        assert abs(value.var_k3 - var_k3) <= TOLERANCE * scale


@pytest.mark.parametrize("family", FORMULAS, ids=lambda family: family.__name__)
def test_variances_of_k2_and_k3_keep_their_bounds(family):
    with mpmath.workdps(120):
        for q, p in pairs(family, 2, 60):
            if not 1e-12 < max(vars(q).values()) / min(vars(q).values()) < 1e12:
                continue
            value = moments(q, p)
            kl, chi, central = FORMULAS[family](q, p)
            if value.kl < 1e60 and value.var_k2 < math.inf:
                check_moments(value, kl, FORMULAS[family](p, q)[0], chi, *central)


@pytest.mark.parametrize("step", [1e-12, 1e-6, 0.1, 2.0])
def test_categorical_laws_close_and_far(step):
    rng = np.random.Generator(np.random.PCG64(3))
    with mpmath.workdps(60):
        for _ in range(10):
            weights = np.exp(20 * rng.standard_normal(6))
            q = weights / weights.sum()
            # Mass moves from the likeliest point, so that both laws sum to the same number.
            p = q.copy()
            near = np.argsort(q)[:-1]
            p[near] = q[near] * np.exp(step * rng.standard_normal(5))
            p[np.argmax(q)] += math.fsum(q[near]) - math.fsum(p[near])
            if min(p) <= 0:
                continue
            kl, chi, central = categorical(q, p)
            mass = mpmath.fsum(map(mpmath.mpf, p)) - mpmath.fsum(map(mpmath.mpf, q))
            found = Categorical(q)
            assert is_within(found.kl(Categorical(p)), kl + mass, TOLERANCE)
            assert is_within(found.chi_squared_from(Categorical(p)), chi, TOLERANCE)
            assert is_within(found.central_moments(Categorical(p)).second, central[0], 1e-9)


@pytest.mark.parametrize("step", [1e-12, 1e-6, 0.1, 3.0])
def test_normal_vectors_close_and_far(step):
    rng = np.random.Generator(np.random.PCG64(4))
    for _ in range(5):
        a, b = rng.standard_normal((2, 3, 3))
        covariance = a @ a.T + np.eye(3)
        other = covariance + step * (b + b.T) / 8
        if step > 1:
            other = covariance * step + b @ b.T
        q = MultivariateNormal([0.1, 0.2, 0.3], covariance)
        p = MultivariateNormal(np.array([0.1, 0.2, 0.3]) + step * rng.standard_normal(3), other)
        with mpmath.workdps(60):
            s, t = mpmath.matrix(q.covariance.tolist()), mpmath.matrix(p.covariance.tolist())
            d = mpmath.matrix(p.mean.tolist()) - mpmath.matrix(q.mean.tolist())
            inverse = t**-1
            ratio = inverse * s
            trace = sum(ratio[i, i] for i in range(3))
            kl = (trace - 3 - mpmath.log(mpmath.det(ratio)) + (d.T * inverse * d)[0]) / 2
            moved = ratio - mpmath.eye(3)
            square = moved * moved
            second = sum(square[i, i] for i in range(3)) / 2
            second += (d.T * inverse * s * inverse * d)[0]
        conditions = np.linalg.cond(covariance) * np.linalg.cond(other)
        assert is_within(q.kl(p), kl, TOLERANCE * conditions)
        assert is_within(q.central_moments(p).second, second, TOLERANCE * conditions)


def test_what_is_no_float_is_infinite():
    value = moments(Normal(0.0, 1.0), Normal(1e200, 1.0))
    assert value.kl == value.reverse_kl == value.var_k1 == value.var_k2 == value.var_k3 == math.inf
    assert value.optimal_lambda == 0
    assert moments(Laplace(0.0, 1e300), Laplace(0.0, 1e-300)).var_k1 == math.inf
    assert moments(Normal(0.0, 1e-200), Normal(-1e200, 1e-200)).kl == math.inf
    assert Normal(0.0, 1e300).kl(Normal(0.0, 1e-10)) == math.inf
    far = moments(Poisson(1e-3), Poisson(1e5))
    assert far.kl == pytest.approx(1e5 - 1e-3 - 1e-3 * math.log(1e8), rel=1e-13)
    assert far.chi_squared == math.inf
