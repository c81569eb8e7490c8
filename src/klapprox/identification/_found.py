"""The parts of a loss as data."""

import math
from dataclasses import dataclass, field

from klapprox.identification._functions import DIRECTIONS, SLOPES

__all__ = ["Edge", "Found"]


@dataclass(frozen=True)
class Edge:
    """Where a loss of one token stops following its formula, towards one end of log r.

    Attributes
    ----------
    value_from, value_is : float, optional
        The log-ratio from which on the value leaves its formula, and the constant that it then is,
        if it is one.
    gradient_zero_from : float, optional
        From which on the derivative is exactly zero.
    gradient_lost_from : float, optional
        From which on rounding in ``float32`` makes it zero although it is not.
    not_finite_from : float, optional
        From which on value or derivative is infinite or NaN in ``float32``.
    refused_from : float, optional
        From which on the loss raises an error in ``float32``.
    """

    value_from: float | None = None
    value_is: float | None = None
    gradient_zero_from: float | None = None
    gradient_lost_from: float | None = None
    not_finite_from: float | None = None
    refused_from: float | None = None


@dataclass(frozen=True)
class Found:
    """The parts of a loss; what is none of the known ones is ``"none"``.

    Attributes
    ----------
    value : str
        ``"k1"``, ``"k2"``, ``"k3"``, ``"abs_k1"``, ``"k_lambda"``, ``"log_pi"``, ``"log_ref"``,
        ``"log_old"`` or ``"constant"``; ``lam`` is λ.
    form : str
        ``"score"`` where the value is multiplied by log π, as a reward is; else ``"plain"``.
    ratio : str
        What it is a function of: ``"pi_ref/pi"``, ``"pi/pi_ref"`` (swapped), ``"pi_ref/pi_old"``
        (frozen), ``"pi_old/pi_ref"``, ``"pi_old/pi"`` or ``"pi/pi_old"``.
    scale : float
        What it is multiplied by, with its sign, for one token in the batch.
    derivative : str
        The coefficient of the score of one token, ``"zero"`` or for example ``"one_minus_r"``, as a
        function of ``derivative_ratio``, times ``derivative_scale``.
    is_derivative_of_value : bool
        Whether automatic differentiation finds the derivative of the value.
    value_weight, gradient_weight : str
        ``"token"``, ``"prefix"``, ``"sequence"``, ``"sequence mean"`` (the geometric mean),
        ``"prefix before"``, ``"suffix"``, or ``"none"`` without a weight, ``"unknown"`` where it is
        none of these.
    weight_limits : (float, float)
        Between which the weight is π/π_old; ``weight_outside`` says what it is beyond them:
        ``"truncated"``, ``"dropped"`` (zero) or ``"other"``; empty without limits.
    clamps_weighted_value : bool
        Whether a limit is met by the product of weight and value.
    level : str
        ``"token"``, ``"sequence"`` (a function of the response's ratio) or ``"sequence mean"`` (of
        its geometric mean).
    credit : str
        Whose score a token's term multiplies: ``"own"``, ``"to go"`` (its own and those before, so
        that a token answers for what follows) or ``"whole"`` (all), ``"mean"`` (all, divided by
        the length); with ``"differentiated "`` before where that comes from a weight; ``"zero"``.
    normalisation : str
        ``"sum"``, ``"mean over positions"``, ``"mean over kept tokens"``, ``"mean of sequence
        means"``, ``"mean of sequence sums"``, ``"sum of sequence means"``, ``"sum of means over
        positions"`` or ``"other"``; ``exponents`` are those of the number of responses, of
        positions, of the response's tokens and of the batch's tokens in the factor of a token.
    rows_independent : bool
        Whether a response's derivative stays when another response of the batch changes.
    below, above : Edge
        Where it stops following its formula for small and for large log r.
    masked : dict
        By what all arrays hold at masked tokens: ``"unchanged"``, ``"changed"``, ``"not finite"``
        or ``"refused"``, for value and gradient.
    empty_response : str
        The same for a response whose tokens are all masked: ``"finite"``, ``"not finite"`` or
        ``"refused"``.
    error : float
        Largest relative deviation of one token from the formulas that were recognised.
    """

    value: str = "none"
    lam: float | None = None
    form: str = "plain"
    ratio: str = "none"
    scale: float = math.nan
    derivative: str = "none"
    derivative_scale: float = math.nan
    derivative_ratio: str = "none"
    is_derivative_of_value: bool = False
    value_weight: str = "none"
    gradient_weight: str = "none"
    weight_limits: tuple[float, float] = (0.0, math.inf)
    weight_outside: str = ""
    clamps_weighted_value: bool = False
    level: str = "none"
    credit: str = "none"
    normalisation: str = "none"
    exponents: tuple[float, ...] = ()
    rows_independent: bool = True
    below: Edge = Edge()
    above: Edge = Edge()
    masked: dict[str, dict[str, str]] = field(default_factory=dict)
    empty_response: str = "finite"
    error: float = math.nan

    @property
    def direction(self) -> str:
        """The divergence that the value estimates for samples of the law in the denominator."""
        return DIRECTIONS.get(self.ratio, "none")

    @property
    def swapped(self) -> bool:
        """Whether policy and reference are exchanged."""
        return self.ratio == "pi/pi_ref"

    @property
    def weight(self) -> str:
        """The weight in the value, or in the gradient if only that has one."""
        return self.gradient_weight if self.value_weight == "none" else self.value_weight

    @property
    def weight_gradient(self) -> str:
        """How the weight is differentiated, empty without one.

        ``"differentiated"``, ``"detached"``, ``"weight only"`` (what it multiplies is not),
        ``"gradient only"`` (the value has none), ``"value only"``, or ``"unknown"``.
        """
        if self.weight == "none":
            return ""
        if self.value_weight == "none":
            return "gradient only"
        if self.derivative == "zero":
            return "detached"
        if self.is_derivative_of_value or self.credit.startswith("differentiated"):
            return "differentiated"
        if self.derivative != "none" and self.gradient_weight == "none":
            return "value only"
        own, beside, alone = SLOPES.get((self.value, self.swapped), ("", "", ""))
        if self.value_weight != self.gradient_weight or self.derivative == "none":
            return "unknown"
        if self.derivative == alone:
            return "weight only"
        # One token alone may look differentiated; in responses it was not the derivative.
        slopes = {own, beside, *(slope for slope, _, _ in SLOPES.values())}
        return "detached" if self.derivative in slopes else "unknown"

    @property
    def clamp(self) -> str:
        """What a clamp acts on.

        ``"log r"``, the ``"value"``, ``"either"`` where that is the same function, or the
        ``"weighted value"``; empty without a clamp.
        """
        if self.clamps_weighted_value:
            return "weighted value"
        edges = [edge for edge in (self.below, self.above) if edge.value_is is not None]
        if not edges:
            return ""
        if self.value == "k1" or (len(edges) == 2 and self._symmetric):
            return "either"
        if len(edges) == 1:
            return "log r"  # a limit of the value would be met on both sides
        low, high = (edge.value_is for edge in edges)
        return "value" if math.isclose(low, high, rel_tol=1e-3) else "log r"  # type: ignore[arg-type]

    @property
    def _symmetric(self) -> bool:
        """Whether the value is an even function that is constant beyond the same |log r|."""
        if self.value not in ("k2", "abs_k1"):
            return False
        low, high = self.below.value_from, self.above.value_from
        return low is not None and high is not None and math.isclose(-low, high, rel_tol=1e-3)
