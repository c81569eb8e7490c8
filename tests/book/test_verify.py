"""A check accepts what is true and proved, and refuses everything else, saying why."""

import math
from fractions import Fraction
from functools import partial

import mpmath
import numpy as np
import pytest
import sympy as sp

from klapprox.book import verify
from klapprox.book.verify import VerificationError

X, Y = sp.symbols("x y", positive=True)
Z = sp.Symbol("z", real=True)
BELOW = sp.Symbol("n", negative=True)
N = sp.Symbol("n", integer=True, positive=True)
F = sp.Function("f")
TINY = sp.Rational(1, 10**50)  # below what the certifying evaluations resolve


close = partial(verify.close, digits=12)
KINDS = {
    "equal": verify.equal,
    "differ": verify.differ,
    "at_most": verify.at_most,
    "less_than": verify.less_than,
    "close": close,
}
every_kind = pytest.mark.parametrize("claim", KINDS.values(), ids=KINDS)


def verdict(claim):
    """Return how the check says that the claim was established."""
    report = verify.check("label", claim, scope="scope")
    (claim,) = report.claims
    assert claim.words == "words"
    lines = repr(report).splitlines()[2:-1]
    return " ".join(line.strip() for line in lines)


def refusal(claim):
    with pytest.raises(VerificationError) as caught:
        verify.check("label", claim, scope="scope")
    message = str(caught.value)
    assert message.startswith("label: ")
    return message


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (2, sp.Integer(2)),
        (Fraction(1, 3), sp.Rational(1, 3)),
        (np.int64(4), 4),
        ((X + Y) ** 2, X**2 + 2 * X * Y + Y**2),  # by expansion
        ((X**2 - 1) / (X - 1), X + 1),  # by cancellation
        (sp.log(X * Y), sp.log(X) + sp.log(Y)),  # by expanding logarithms
        (sp.sin(X) ** 2 + sp.cos(X) ** 2, 1),  # by simplification
        (sp.log(6), sp.log(2) + sp.log(3)),
        (N * (N + 1) / 2, (N**2 + N) / 2),
        (sp.oo, sp.oo + 1),
    ],
    ids=str,
)
def test_true_equalities_are_accepted(left, right):
    assert verdict(verify.equal("words", left, right)) == "exactly equal"


@pytest.mark.parametrize(
    ("left", "right", "residual"),
    [
        (sp.Rational(1, 3), sp.Rational(1, 2), "-1/6"),
        (X + 1, X, "left - right = 1 "),
        ((X + Y) ** 2, X**2 + Y**2, "-x**2 - y**2 + (x + y)**2 (≈ 0.0222222"),  # 2xy at 1/9, 1/10
        (sp.oo, 1, "oo"),
        (sp.oo, -sp.oo, "oo"),
        (N, 2 * N, "-n"),
        (sp.I, 1, "-1 + I"),
    ],
    ids=str,
)
def test_false_equalities_are_refused_with_their_residual(left, right, residual):
    message = refusal(verify.equal("words", left, right))
    assert message.startswith("label: words: case 1 of 1: not equal: left - right = ")
    assert residual in message


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (sp.Abs(Z), Z),  # equal at the test point only, where z > 0
        (0, TINY),
        (F(1), F(2)),  # no number: nothing is known about f
    ],
    ids=str,
)
def test_an_equality_without_proof_is_refused(left, right):
    assert "could not be proved equal: left - right = " in refusal(
        verify.equal("words", left, right)
    )


def test_a_pole_at_the_test_point_does_no_harm():
    pole = X - verify._test_point(X)[X]
    identity = verify.equal("words", (X * pole + pole) / pole**2, X / pole + 1 / pole)
    assert verdict(identity) == "exactly equal"
    assert "not" in refusal(verify.equal("words", X / pole, 1 / pole))


def test_a_long_residual_is_cut():
    symbols = sp.symbols("a:40", positive=True)
    message = refusal(verify.equal("words", sum(symbols), 0))
    assert " ... (≈ " in message
    assert len(message) < 350


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 2), (X, X + 1), (X, Y), (sp.oo, 0), (sp.oo, -sp.oo), (sp.log(2), sp.Rational(69, 100))],
    ids=str,
)
def test_different_sides_differ(left, right):
    assert verdict(verify.differ("words", left, right)) == "certainly different"


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, 1), (sp.oo, sp.oo), (X * (X + 1), X**2 + X), (0, TINY), (sp.Abs(Z), Z), (F(1), F(2))],
    ids=str,
)
def test_sides_not_shown_to_differ_are_refused(left, right):
    assert "not shown to differ: left - right = " in refusal(verify.differ("words", left, right))


@pytest.mark.parametrize(
    ("smaller", "larger", "how"),
    [
        (1, 1, "holds exactly"),
        (-sp.oo, X, "holds exactly"),
        (Z, sp.oo, "holds exactly"),
        (sp.oo, sp.oo, "holds exactly"),
        (-sp.oo, -sp.oo, "holds exactly"),
        (sp.log(6), sp.log(2) + sp.log(3), "equality is exact"),
        (sp.Rational(69, 100), sp.log(2), "certified to 50 digits"),
        (-1, X, "proved symbolically"),
        (2 * X * Y, X**2 + Y**2, "proved symbolically"),  # by factoring
        (sp.sin(Z) ** 2 + sp.cos(Z) ** 2 - 1, X, "proved symbolically"),  # by simplification
    ],
    ids=str,
)
def test_true_inequalities_are_accepted(smaller, larger, how):
    assert verdict(verify.at_most("words", smaller, larger)) == how


@pytest.mark.parametrize(
    ("smaller", "larger", "how"),
    [
        (0, 1, "certified to 50 digits"),
        (sp.log(2), sp.Rational(7, 10), "certified to 50 digits"),
        (1, sp.oo, "holds exactly"),
        (-sp.oo, sp.oo, "holds exactly"),
        (-sp.oo, 1, "holds exactly"),
        (-1, X, "proved symbolically"),
        (0, X**2 + 2 * X * Y + Y**2, "proved symbolically"),
    ],
    ids=str,
)
def test_true_strict_inequalities_are_accepted(smaller, larger, how):
    assert verdict(verify.less_than("words", smaller, larger)) == how


false_or_unproved = pytest.mark.parametrize(
    ("smaller", "larger", "words"),
    [
        (2, 1, "right - left = -1 "),
        (sp.log(2), sp.Rational(69, 100), "right - left = 69/100 - log(2) ≈ -0.00314718"),
        (sp.oo, 5, "right - left = -oo"),
        (0, -sp.oo, "right - left = -oo"),
        (0, sp.I, "right - left = I"),
        (X, Y, "false at a test point: right - left = -x + y (≈ 0.0111111 "),  # 1/9 - 1/10
        (Y, X, "could not be proved: right - left = x - y (≈ 0.0111111 "),
        (BELOW + 1, 0, "could not be proved: right - left = -n - 1 "),  # no test point has n < 0
        (0, Z, "could not be proved: right - left = z "),
        (F(1), F(2), "could not be proved: right - left = -f(1) + f(2)"),
    ],
    ids=str,
)


@false_or_unproved
def test_false_and_unproved_inequalities_are_refused(smaller, larger, words):
    assert words in refusal(verify.at_most("words", smaller, larger))


@false_or_unproved
def test_false_and_unproved_strict_inequalities_are_refused(smaller, larger, words):
    assert words in refusal(verify.less_than("words", smaller, larger))


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [(1, 1), (sp.oo, sp.oo), (-sp.oo, -sp.oo), (sp.log(6), sp.log(2) + sp.log(3))],
    ids=str,
)
def test_equal_sides_are_not_strictly_less(smaller, larger):
    assert "right - left = " in refusal(verify.less_than("words", smaller, larger))


@pytest.mark.parametrize("claim", [verify.at_most, verify.less_than])
def test_a_gap_too_small_to_certify_is_not_called_false(claim):
    message = refusal(claim("words", 0, TINY * sp.log(2)))
    assert "false:" not in message
    assert "right - left = " in message


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1 / 3, Fraction(1, 3)),
        (mpmath.pi, sp.pi),
        (np.float64(0.1), sp.Rational(1, 10)),
        (0, 0.0),
        (sp.log(2), math.log(2)),
        (1 + 1e-13, 1),
    ],
    ids=str,
)
def test_close_numbers_are_accepted(left, right):
    assert verdict(verify.close("words", left, right, digits=12)) == "agree to 12 digits"


def test_close_evaluates_beyond_double_precision():
    with mpmath.workdps(60):
        root = mpmath.sqrt(2)
    how = verdict(verify.close("words", root, sp.sqrt(2), digits=50))
    assert how == "agree to 50 digits"
    assert "left - right = " in refusal(verify.close("words", 2**0.5, sp.sqrt(2), digits=50))


@pytest.mark.parametrize(("left", "right"), [(1 + 1e-11, 1), (0, 1e-300), (-1, 1)], ids=str)
def test_too_few_digits_in_common_are_refused_with_the_difference(left, right):
    message = refusal(verify.close("words", left, right, digits=12))
    assert f"left - right = {mpmath.nstr(mpmath.mpf(left) - right, 5)} with right = " in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -mpmath.inf])
def test_only_finite_numbers_are_close(bad):
    assert "only finite numbers can be close" in refusal(close("words", bad, 1.0))
    assert "only finite numbers can be close" in refusal(close("words", 1.0, bad))


@pytest.mark.parametrize("bad", [sp.oo, sp.nan, sp.zoo, X, F(1), None])
def test_close_refuses_what_is_no_finite_number(bad):
    assert "words: case 1 of 1: " in refusal(close("words", bad, 1.0))


@pytest.mark.parametrize("digits", [0, -3])
def test_close_needs_a_digit(digits):
    with pytest.raises(ValueError, match=f"^digits is {digits}; "):
        verify.close("words", 1, 1, digits=digits)


@pytest.mark.parametrize("claim", [KINDS[kind] for kind in KINDS if kind != "close"])
@pytest.mark.parametrize("bad", [0.5, np.float64(0.5), sp.Float(0.5) * X, mpmath.mpf(1), "1"])
def test_floats_and_strings_are_not_exact(claim, bad):
    assert "is not exact; use rationals and SymPy" in refusal(claim("words", bad, 1))
    assert "is not exact; use rationals and SymPy" in refusal(claim("words", 1, bad))


@pytest.mark.parametrize("claim", [KINDS[kind] for kind in KINDS if kind != "close"])
@pytest.mark.parametrize("bad", [sp.nan, sp.zoo])
def test_undefined_values_are_refused(claim, bad):
    assert f"{bad} is undefined" in refusal(claim("words", bad, 1))
    assert f"{bad} is undefined" in refusal(claim("words", 1, bad))


@pytest.mark.parametrize("claim", [KINDS[kind] for kind in KINDS if kind != "close"])
@pytest.mark.parametrize("bad", [sp.true, sp.Tuple(1, X), X < 1], ids=str)
def test_what_is_no_expression_is_refused(claim, bad):
    assert "words: case 1 of 1: " in refusal(claim("words", bad, 2))


@every_kind
def test_every_kind_compares_case_by_case(claim):
    low, high = [1, 2, 3], [2, 3, 4]
    equal_sides = claim in (verify.equal, close)
    how = verdict(claim("words", low, [1, 2, 3] if equal_sides else high))
    assert how.startswith("3 cases, ")
    wrong = [1, 7, 3] if equal_sides else [2, 2, 4]
    if claim is verify.at_most:
        wrong = [2, 1, 4]
    assert "words: case 2 of 3: " in refusal(claim("words", low, wrong))


@pytest.mark.parametrize(
    "three",
    [[1, 2, 3], (1, 2, 3), np.array([1, 2, 3]), sp.Matrix([1, 2, 3]), [[1], [2, 3]]],
    ids=str,
)
def test_cases_come_in_any_container_and_one_value_meets_all(three):
    assert verdict(verify.equal("words", three, [1, 2, 3])) == "3 cases, exactly equal"
    assert verdict(verify.less_than("words", 0, three)) == "3 cases, certified to 50 digits"
    assert verdict(verify.less_than("words", three, [4])) == "3 cases, certified to 50 digits"


def test_the_ways_in_which_the_cases_were_established_are_listed_once():
    how = verdict(verify.at_most("words", 0, [0, 1, X, 2, Y]))
    assert how == "5 cases, holds exactly and certified to 50 digits and proved symbolically"


@every_kind
def test_no_cases_are_no_claim(claim):
    assert "words: there are no cases; nothing is claimed" in refusal(claim("words", [], []))


@pytest.mark.parametrize(("left", "right"), [([1, 2, 3], [1, 2]), ([1], []), ([], 1)], ids=str)
@every_kind
def test_sides_of_different_lengths_are_refused(claim, left, right):
    assert " values on the left, " in refusal(claim("words", left, right))


def test_the_claim_whose_sides_have_different_lengths_is_named():
    assert "words: " in refusal(verify.equal("words", [1, 2, 3], [1, 2]))


@every_kind
@pytest.mark.parametrize("words", ["", "  \n"])
def test_a_claim_without_words_is_refused(claim, words):
    with pytest.raises(VerificationError, match=r"^label: A claim needs words"):
        verify.check("label", claim(words, 1, 2), scope="scope")


def test_a_check_without_a_claim_is_refused():
    with pytest.raises(VerificationError, match=r"^label: a check without a claim"):
        verify.check("label", scope="scope")


@pytest.mark.parametrize(("label", "scope"), [("", "scope"), (" ", "scope"), ("label", "\t")])
def test_label_and_scope_are_wanted(label, scope):
    with pytest.raises(VerificationError, match="needs the label of a statement and the scope"):
        verify.check(label, verify.equal("words", 1, 1), scope=scope)


def test_the_report_shows_label_words_verdicts_and_scope():
    report = verify.check(
        "thm-a-label",
        verify.equal("one and one are two", 1 + 1, 2),
        verify.at_most("words that go on " * 8, 0, [X, Y]),
        scope="two numbers and two symbols",
    )
    assert report.label == "thm-a-label"
    assert [claim.cases for claim in report.claims] == [1, 2]
    lines = repr(report).splitlines()
    assert lines[:3] == ["✓ thm-a-label", "  one and one are two", "      exactly equal"]
    assert lines[-2:] == [
        "      2 cases, proved symbolically",
        "  over two numbers and two symbols",
    ]
    assert max(map(len, lines)) <= verify.WIDTH
    # Continued lines are indented deeper than the first line of their claim.
    assert lines[3].startswith("  words")
    assert all(line.startswith("      ") for line in lines[4:-1])


def test_the_report_is_data_too():
    report = verify.check(
        "thm-a-label",
        verify.equal("one and one are two", 1 + 1, 2),
        verify.at_most("an order", [0, sp.log(2), 1], [X, 1, 1]),
        scope="two numbers",
    )
    bundle = report._repr_mimebundle_(include=None, exclude=None)
    assert bundle.pop("text/plain") == repr(report)
    assert bundle == {
        "application/vnd.klapprox.report+json": {
            "label": "thm-a-label",
            "scope": "two numbers",
            "claims": [
                {
                    "words": "one and one are two",
                    "cases": 1,
                    "methods": ["exactly equal"],
                    "kinds": ["exact"],
                },
                {
                    "words": "an order",
                    "cases": 3,
                    "methods": ["proved symbolically", "certified to 50 digits", "holds exactly"],
                    "kinds": ["symbolic", "50-digit bound", "exact"],
                },
            ],
        }
    }


def test_the_first_false_claim_of_a_check_is_named():
    with pytest.raises(VerificationError, match=r"^label: false: case 1 of 1: not equal"):
        verify.check(
            "label", verify.equal("true", 1, 1), verify.equal("false", 1, 2), scope="scope"
        )


def test_a_refusal_is_an_assertion_error_for_test_runners():
    assert issubclass(VerificationError, AssertionError)
