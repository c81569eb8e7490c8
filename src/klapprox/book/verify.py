"""Machine checks of the book's statements.

A check names a statement by its label and holds one or more claims::

    verify.check(
        "lem-mean-of-r",
        verify.equal("E_q r = 1", pair.mean(lambda r, log_r: r), 1),
        scope="every pair of distributions on three points, symbolically",
    )

It decides every claim, fails loudly with the residual, and otherwise returns a `Report` that says
what was covered. Equality is decided exactly (rational arithmetic and SymPy), never to a
tolerance; `close` is for quadrature against a closed form and says how many digits agreed.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral
from typing import Any, NamedTuple

import mpmath
import sympy as sp

__all__ = [
    "MIME_TYPE",
    "Claim",
    "Established",
    "Method",
    "Report",
    "VerificationError",
    "at_most",
    "check",
    "close",
    "differ",
    "equal",
    "less_than",
]

MIME_TYPE = "application/vnd.klapprox.report+json"
"""Of the data of a report among the outputs of a notebook."""

WIDTH = 76  # of the reports, which the site shows in its text column
DIGITS = 50  # of the evaluations that certify an inequality


class VerificationError(AssertionError):
    """A claim is false, or could not be proved."""


class Method(NamedTuple):
    """How a claim was established.

    Attributes
    ----------
    words : str
        What a report says, for example "exactly equal".
    kind : str
        What lists of results call it, for example "exact".
    """

    words: str
    kind: str


_EQUAL = Method("exactly equal", "exact")
_EQUALITY = Method("equality is exact", "exact")
_HOLDS = Method("holds exactly", "exact")
_DIFFERENT = Method("certainly different", "exact counterexample")
_SYMBOLIC = Method("proved symbolically", "symbolic")
_CERTIFIED = Method(f"certified to {DIGITS} digits", f"{DIGITS}-digit bound")


@dataclass(frozen=True)
class Claim:
    """One relation between two sides, each a value or a sequence of values (cases)."""

    words: str
    relation: str
    left: Any
    right: Any
    digits: int = 0

    def decide(self) -> "Established":
        """Raise `VerificationError`, or return how the claim was established."""
        if not self.words.strip():
            raise VerificationError("A claim needs words that say what is claimed.")
        cases = _cases(self)
        methods = []
        for number, (left, right) in enumerate(cases, start=1):
            try:
                methods.append(_DECISIONS[self.relation](left, right, self.digits))
            except VerificationError as error:
                raise VerificationError(
                    f"{self.words}: case {number} of {len(cases)}: {error}"
                ) from None
        return Established(self.words, len(cases), tuple(dict.fromkeys(methods)))


@dataclass(frozen=True)
class Established:
    """A claim that was decided: its words, the number of cases, and how they were decided."""

    words: str
    cases: int
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Report:
    """What a successful check covered: text below the cell that made it, and data for programs."""

    label: str
    scope: str
    claims: tuple[Established, ...]

    def __repr__(self) -> str:
        """Return the report as lines of text."""
        text = [f"✓ {self.label}"]
        for claim in self.claims:
            count = "" if claim.cases == 1 else f"{claim.cases} cases, "
            methods = " and ".join(method.words for method in claim.methods)
            text += [_indented(claim.words, 2), _indented(count + methods, 6)]
        return "\n".join([*text, _indented(f"over {self.scope}", 2)])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the text and, under `MIME_TYPE`, the report as data, which a notebook stores."""
        data = {
            "label": self.label,
            "scope": self.scope,
            "claims": [
                {
                    "words": claim.words,
                    "cases": claim.cases,
                    "methods": [method.words for method in claim.methods],
                    "kinds": list(dict.fromkeys(method.kind for method in claim.methods)),
                }
                for claim in self.claims
            ],
        }
        return {"text/plain": repr(self), MIME_TYPE: data}


def _indented(text: str, columns: int) -> str:
    """Return the text in lines of the site's width, continued four columns further in."""
    margin = " " * columns
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=margin,
        subsequent_indent=margin + "    ",
        break_on_hyphens=False,
    )


def equal(words: str, left: Any, right: Any) -> Claim:
    """Claim that both sides are exactly equal, in every case."""
    return Claim(words, "=", left, right)


def differ(words: str, left: Any, right: Any) -> Claim:
    """Claim that both sides are certainly different, in every case: a counterexample."""
    return Claim(words, "≠", left, right)


def at_most(words: str, smaller: Any, larger: Any) -> Claim:
    """Claim smaller <= larger, in every case; equality must be exact."""
    return Claim(words, "≤", smaller, larger)


def less_than(words: str, smaller: Any, larger: Any) -> Claim:
    """Claim smaller < larger, in every case."""
    return Claim(words, "<", smaller, larger)


def close(words: str, left: Any, right: Any, *, digits: int) -> Claim:
    """Claim that both sides agree to so many significant digits, in every case."""
    if digits < 1:
        raise ValueError(f"digits is {digits}; at least one digit has to agree.")
    return Claim(words, "≈", left, right, digits)


def check(label: str, *claims: Claim, scope: str) -> Report:
    """Decide every claim about the statement with this label.

    Parameters
    ----------
    label : str
        The ``:label:`` of the definition, lemma, proposition, theorem or corollary.
    *claims : Claim
        What the statement says, made with `equal`, `at_most`, `less_than`, `differ`, `close`.
    scope : str
        In words, for which cases the claims were made: the reader must not take it for more.

    Returns
    -------
    Report
        Its ``repr`` is the text that the book shows.

    Raises
    ------
    VerificationError
        If there is no claim, or a claim is empty, undefined, trivial, false or unproved. The
        message holds the residual.

    Examples
    --------
    >>> x = sp.symbols("x", positive=True)
    >>> check("binomial", equal("(x+1)² = x²+2x+1", (x + 1)**2, x**2 + 2*x + 1), scope="x > 0")
    ✓ binomial
      (x+1)² = x²+2x+1
          exactly equal
      over x > 0
    """
    if not label.strip() or not scope.strip():
        raise VerificationError("A check needs the label of a statement and the scope in words.")
    if not claims:
        raise VerificationError(f"{label}: a check without a claim verifies nothing.")
    try:
        return Report(label, scope, tuple(claim.decide() for claim in claims))
    except VerificationError as error:
        raise VerificationError(f"{label}: {error}") from None


def _cases(claim: Claim) -> list[tuple[Any, Any]]:
    """Return the pairs of values to compare."""
    left, right = _listed(claim.left), _listed(claim.right)
    if len(left) == 1 < len(right) or len(right) == 1 < len(left):
        count = max(len(left), len(right))
        left, right = left * (count // len(left)), right * (count // len(right))
    if len(left) != len(right):
        raise VerificationError(
            f"{claim.words}: {len(left)} values on the left, {len(right)} on the right."
        )
    if not left:
        raise VerificationError(f"{claim.words}: there are no cases; nothing is claimed.")
    return list(zip(left, right, strict=True))


def _listed(side: Any) -> list[Any]:
    if isinstance(side, sp.MatrixBase):
        return list(side)
    if hasattr(side, "tolist"):  # NumPy arrays and scalars
        side = side.tolist()
    if isinstance(side, Sequence) and not isinstance(side, str):
        return [value for item in side for value in _listed(item)]
    return [side]


def _exact(value: Any) -> Any:
    """Return an exact value as a SymPy expression; refuse floating point and NaN."""
    if isinstance(value, Fraction):
        value = sp.Rational(value.numerator, value.denominator)
    elif isinstance(value, Integral):
        value = sp.Integer(int(value))
    if not isinstance(value, sp.Expr) or value.has(sp.Float):
        raise VerificationError(
            f"{value!r} is not exact; use rationals and SymPy, or verify.close for quadrature."
        )
    if value.has(sp.nan, sp.zoo):
        raise VerificationError(f"{value} is undefined.")
    return value


def _test_point(expression: Any) -> dict[Any, Any]:
    """Return small distinct positive values for the free symbols; integers where they must be."""
    symbols = sorted(expression.free_symbols, key=lambda symbol: symbol.name)
    return {
        symbol: sp.Integer(2 + i) if symbol.is_integer else sp.Rational(1, 7 + sp.prime(i + 1))
        for i, symbol in enumerate(symbols)
    }


def _magnitude(expression: Any) -> Any:
    """Return abs(expression) at the test point, to `DIGITS` digits."""
    return sp.Abs(sp.N(expression.subs(_test_point(expression)), DIGITS))


def _is_surely_nonzero(expression: Any) -> bool:
    magnitude = _magnitude(expression)
    return bool(magnitude.is_finite and magnitude > sp.Float(10) ** (10 - DIGITS))


def _is_zero(expression: Any) -> bool:
    """Prove that the expression vanishes identically."""
    for transform in (sp.expand, sp.cancel, lambda e: sp.cancel(sp.expand_log(e)), sp.simplify):
        if transform(expression) == 0:
            return True
    return False


def _difference(left: Any, right: Any) -> Any:
    left, right = _exact(left), _exact(right)
    if left.is_infinite or right.is_infinite:
        return sp.S.Zero if left == right else sp.oo
    return left - right


def _decide_equal(left: Any, right: Any, _: int) -> Method:
    residual = _difference(left, right)
    if residual == 0:
        return _EQUAL
    if residual == sp.oo or _is_surely_nonzero(residual):
        raise VerificationError(f"not equal: left - right = {_shown(residual)}")
    if not _is_zero(residual):
        raise VerificationError(f"could not be proved equal: left - right = {_shown(residual)}")
    return _EQUAL


def _decide_differ(left: Any, right: Any, _: int) -> Method:
    residual = _difference(left, right)
    if residual != sp.oo and not _is_surely_nonzero(residual):
        raise VerificationError(f"not shown to differ: left - right = {_shown(residual)}")
    return _DIFFERENT


def _decide_at_most(left: Any, right: Any, _: int) -> Method:
    left, right = _exact(left), _exact(right)
    if left == -sp.oo or right == sp.oo or left == right:
        return _HOLDS
    gap = right - left
    if not gap.is_number:
        if gap.is_nonnegative or sp.factor(gap).is_nonnegative or sp.simplify(gap).is_nonnegative:
            return _SYMBOLIC
        raise _unproved(gap)
    if not _is_surely_nonzero(gap) and _is_zero(gap):
        return _EQUALITY
    return _certify_positive(gap)


def _decide_less_than(left: Any, right: Any, _: int) -> Method:
    gap = _exact(right) - _exact(left)
    if gap == sp.oo:
        return _HOLDS
    if not gap.is_number:
        if gap.is_positive or sp.factor(gap).is_positive or sp.simplify(gap).is_positive:
            return _SYMBOLIC
        raise _unproved(gap)
    return _certify_positive(gap)


def _unproved(gap: Any) -> VerificationError:
    """Return the error of an inequality between expressions: false at a point, or not proved."""
    value = sp.N(gap.subs(_test_point(gap)), DIGITS)
    inside = all(symbol.is_positive is not False for symbol in gap.free_symbols)
    false = inside and value.is_real and value < -(sp.Float(10) ** (10 - DIGITS))
    what = "false at a test point" if false else "could not be proved"
    return VerificationError(f"{what}: right - left = {_shown(gap)}")


def _certify_positive(gap: Any) -> Method:
    value = sp.N(gap, DIGITS)
    if not (value.is_real and value > sp.Float(10) ** (10 - DIGITS)):
        raise VerificationError(f"false, or too close to certify: right - left = {_shown(gap)}")
    return _CERTIFIED


def _decide_close(left: Any, right: Any, digits: int) -> Method:
    with mpmath.workdps(max(digits, 15) + 15):
        try:
            a, b = (
                mpmath.mpmathify(sp.N(v, digits + 15) if isinstance(v, sp.Basic) else v)
                for v in (left, right)
            )
        except TypeError:  # an infinity of SymPy, a symbol, None
            a = b = mpmath.nan
        if not (mpmath.isfinite(a) and mpmath.isfinite(b)):
            raise VerificationError(f"{left} against {right}: only finite numbers can be close.")
        residual = abs(a - b)
        if residual > mpmath.mpf(10) ** -digits * max(abs(a), abs(b)):
            raise VerificationError(
                f"left - right = {mpmath.nstr(a - b, 5)} with right = {mpmath.nstr(b, 12)}"
            )
    return Method(f"agree to {digits} digits", "quadrature or high precision")


_DECISIONS = {
    "=": _decide_equal,
    "≠": _decide_differ,
    "≤": _decide_at_most,
    "<": _decide_less_than,
    "≈": _decide_close,
}


def _shown(expression: Any) -> str:
    """Return an expression and, if it has symbols, its size at the test point."""
    text = str(expression)
    if len(text) > 200:
        text = text[:200] + " ..."
    if expression.is_finite is False or not expression.free_symbols:
        return f"{text} ≈ {sp.N(expression, 6)}" if expression.is_number else text
    return f"{text} (≈ {sp.N(_magnitude(expression), 6)} in absolute value at a test point)"
