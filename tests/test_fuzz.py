"""Public functions against odd arguments: a documented result or a documented error, nothing else.

An error is documented if its kind stands under *Raises* and a ``raise`` of klapprox speaks it: not
NumPy, and no slip of ours. A result holds no NaN. What NumPy warns of is an error here, too, but
for an overflow to infinity, which is documented.
Examples are the same everywhere; ``make fuzz`` takes more of them.
"""

import ast
import csv
import functools
import inspect
import io
import json
import os
import re
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import klapprox as kl
from klapprox import control_variates, vocabulary
from klapprox.exact import families, policies, sequences

SOURCE = Path(kl.__file__).parent
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
few = settings(max_examples=EXAMPLES)

# --- The contract ---------------------------------------------------------------------------------


@functools.cache
def raises(path):
    """Return the lines of a file of klapprox on which a ``raise`` begins."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Raise)}


@functools.cache
def documented(function):
    """Return the names of the errors that the documentation of a function lists."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"\nRaises\n-+\n(.*?)(?=\n\S[^\n]*\n-{3,}|\Z)", text, re.DOTALL)
    lines = section[1].splitlines() if section else []
    found = {name for line in lines if line[:1].isupper() for name in re.split(r", ?", line)}
    if "Parameters, errors and result are those of" in text:
        found |= {"TypeError", "ValueError"}
    return found


def outcome(function, *arguments, contract=None, **options):
    """Call a function; return its result, or None where it refuses in the documented way."""
    known = documented(contract or function)
    assert known, f"{function} documents no error"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", kl.KLWarning)
        # NumPy says when it returns infinity, as for exp(710); NaN it is not.
        warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)
        try:
            return function(*arguments, **options)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            spoken = Path(last.filename).is_relative_to(SOURCE) and last.lineno in raises(
                last.filename
            )
            if spoken and type(error).__name__ in known and str(error):
                return None
            raise AssertionError(f"not documented: {type(error).__name__}: {error}") from error


def whole(value):
    """Say whether a result holds no NaN."""
    return not np.any(np.isnan(np.asarray(value, dtype=float)))


# --- Odd arguments --------------------------------------------------------------------------------

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    np.nan,
    np.inf,
    -np.inf,
    1e308,
    -1e308,
    5e-324,
    -745.2,
    709.9,
    350.1,
]
DTYPES = [
    "f2",
    "f4",
    "f8",
    ">f8",
    "g",
    "i4",
    "i8",
    "u1",
    "?",
    "c16",
    "U3",
    "S2",
    "M8[s]",
    "m8[s]",
    "O",
]
NUMBERS = st.one_of(st.sampled_from(SPECIAL), st.floats(-60, 60), st.floats())
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def of_shape(shape, numbers=NUMBERS):
    """Arrays of float64 and what else may stand for them, in memory in any order."""
    plain = hnp.arrays(np.float64, shape, elements=numbers)
    return st.one_of(
        plain,
        plain.map(np.asfortranarray),
        plain.map(lambda a: quiet(a, np.float32)),
        plain.map(lambda a: quiet(a, np.float16)),
        plain.map(lambda a: a.astype(">f8")),
        plain.map(lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a),
        plain.map(lambda a: a.tolist()),
        plain.map(
            lambda a: np.ma.masked_array(a, mask=np.arange(a.size).reshape(a.shape) % 3 == 1)
        ),
        plain.map(np.ma.masked_array),
        plain.map(read_only),
    )


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def quiet(array, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(dtype)


ANY_DTYPE = st.builds(
    quiet, hnp.arrays(np.float64, SHAPES, elements=st.floats(-60, 60)), st.sampled_from(DTYPES)
)
NO_ARRAYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.complex_numbers(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.just([]),
    st.just([[1.0], [1.0, 2.0]]),
    st.just([1.0, None]),
    st.just({"log_q": [1.0]}),
    st.just(object()),
    st.just(np.array([[1.0, 2.0], None], dtype=object)),
    st.just(np.zeros(2, dtype=[("a", "f8")])),
    st.just(np.matrix([[-1.0, -2.0]])),
    st.just(iter([1.0, 2.0])),
    st.just(np.float32(-1)),
)
ODD = st.one_of(SHAPES.flatmap(of_shape), ANY_DTYPE, NO_ARRAYS, NUMBERS)
OPTION = st.one_of(NUMBERS, NO_ARRAYS, st.sampled_from([0, 1, 2, -1, 0.5, np.float64(0.5), True]))


@st.composite
def pairs(draw, count=2, most=2):
    """Arguments that mostly fit together."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=most, min_side=1, max_side=5))
    numbers = draw(st.sampled_from([NUMBERS, st.floats(-5, 0), st.floats(-700, 0)]))
    return [draw(st.one_of(of_shape(shape, numbers), ODD)) for _ in range(count)]


# --- Estimators -----------------------------------------------------------------------------------

ELEMENTWISE = {
    "k1": lambda draw: (),
    "k2": lambda draw: (),
    "k3": lambda draw: (),
    "k3_forward": lambda draw: (),
    "k_lambda": lambda draw: (draw(OPTION),),
    "k_alpha": lambda draw: (draw(OPTION),),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@few
@given(data=st.data())
def test_an_estimator_keeps_shape_and_dtype_or_refuses(name, data):
    log_r = data.draw(ODD)
    value = outcome(getattr(kl, name), log_r, *ELEMENTWISE[name](data.draw))
    if value is not None:
        given_ = np.asarray(log_r)
        assert np.shape(value) == given_.shape
        wanted = given_.dtype if given_.dtype.kind == "f" else np.dtype(float)
        assert value.dtype.newbyteorder("=") == wanted.newbyteorder("=")
        assert whole(value)
        if name in ("k2", "k3", "k3_forward", "k_alpha"):
            assert np.all(value >= 0)


@few
@given(
    log_r=ODD,
    f=st.sampled_from([np.square, np.sqrt, np.log, lambda r: r * 0, None, "f"]),
    slope=OPTION,
)
def test_k_f(log_r, f, slope):
    value = outcome(kl.k_f, log_r, f, slope)
    assert value is None or whole(value)


@few
@given(arguments=pairs(most=3))
def test_log_ratio(arguments):
    value = outcome(kl.log_ratio, *arguments)
    assert value is None or (whole(value) and not np.any(np.isposinf(value)))


# --- Losses ---------------------------------------------------------------------------------------

MASK = st.one_of(st.none(), hnp.arrays(bool, hnp.array_shapes(max_dims=2, max_side=5)), ODD)


@few
@given(
    arguments=pairs(3),
    mask=MASK,
    level=st.sampled_from(["sequence", "token", "", None, 1]),
    reduction=st.sampled_from(["sequence", "none", "sequence-mean", "token-mean", "mean", None]),
    bounds=st.tuples(st.none() | OPTION, st.none() | OPTION),
    weigh=st.booleans(),
)
def test_kl_loss(arguments, mask, level, reduction, bounds, weigh):
    log_pi, log_ref, log_old = arguments
    value = outcome(
        kl.kl_loss,
        log_pi,
        log_ref,
        log_old=log_old if weigh else None,
        mask=mask,
        level=level,
        reduction=reduction,
        max_weight=bounds[0],
        clamp=bounds[1],
    )
    assert value is None or np.all(np.isfinite(value))


@few
@given(arguments=pairs(), detach=st.booleans())
def test_weighted_and_straight_through(arguments, detach):
    value = outcome(kl.weighted, *arguments, detach=detach)
    assert value is None or whole(value) or not whole(arguments[0])
    value = outcome(kl.straight_through, *arguments)
    assert value is None or whole(value) or not whole(arguments[0]) or not whole(arguments[1])


# --- Estimates and streams ------------------------------------------------------------------------

KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "mask": MASK,
        "groups": st.one_of(st.none(), st.lists(st.integers(0, 2), max_size=5), ODD),
        "log_weights": ODD,
    },
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "estimator": st.sampled_from(["k1", "k2", "k3", "k_lambda", "k4", None, 3]),
        "level": st.sampled_from(["sequence", "token", "", None]),
        "self_normalised": st.booleans(),
        "confidence": OPTION,
    },
)


def sound(estimate):
    """An estimate without NaN, which can be printed."""
    assert whole([estimate.value, estimate.standard_error, *estimate.interval]), estimate
    assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
    assert estimate.standard_error >= 0
    assert str(estimate)
    assert estimate._repr_markdown_()


@few
@given(arguments=pairs(), keywords=KEYWORDS, options=OPTIONS)
def test_estimate_kl(arguments, keywords, options):
    estimate = outcome(kl.estimate_kl, *arguments, **keywords, **options)
    if estimate is not None:
        sound(estimate)


@few
@given(parts=st.lists(st.tuples(pairs(), KEYWORDS), min_size=1, max_size=3), options=OPTIONS)
def test_streams(parts, options):
    stream = kl.KLStream()
    for arguments, keywords in parts:
        outcome(stream.update, *arguments, contract=kl.KLStream.update, **keywords)
    estimate = outcome(stream.estimate, contract=kl.KLStream.estimate, **options)
    if estimate is not None:
        sound(estimate)
    assert kl.KLStream.of_state(stream.state) == stream


@few
@given(state=of_shape((len(kl.KLStream().state),)) | ODD)
def test_the_state_of_a_stream(state):
    outcome(kl.KLStream.of_state, state)


@few
@given(chunk=st.one_of(pairs().map(tuple), ODD, st.just({"log_q": [0.0]}), st.just((1, 2, 3))))
def test_chunks_of_a_stream(chunk):
    outcome(kl.stream_kl, [chunk])


@few
@given(arguments=pairs())
def test_stream_dask_without_dask(arguments):
    assert outcome(kl.stream_dask, *arguments) is None


# --- Control variates -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [control_variates.regression, control_variates.leave_one_out, control_variates.cross_fitted],
    ids=lambda function: function.__name__,
)
@few
@given(log_r=st.one_of(pairs(1, 1).map(lambda one: one[0]), ODD))
def test_control_variates(function, log_r):
    value = outcome(function, log_r)
    assert value is None or np.isfinite(value)


@few
@given(log_r=ODD, controls=ODD, cross_fit=st.booleans(), data=st.data())
def test_several_control_variates(log_r, controls, cross_fit, data):
    if data.draw(st.booleans()):
        rows = data.draw(st.integers(1, 9))
        log_r = data.draw(of_shape((rows,), st.floats(-20, 20)))
        controls = data.draw(of_shape((rows, data.draw(st.integers(0, 2))), NUMBERS))
    value = outcome(control_variates.several, log_r, controls, cross_fit=cross_fit)
    assert value is None or np.isfinite(value)


# --- Whole vocabularies ---------------------------------------------------------------------------


@few
@given(arguments=pairs(most=3), temperature=st.just(1.0) | OPTION, chunk=st.none() | OPTION)
def test_exact_kl(arguments, temperature, chunk):
    value = outcome(vocabulary.exact_kl, *arguments, temperature=temperature, chunk=chunk)
    assert value is None or (whole(value) and np.all(value >= 0))


@few
@given(arguments=pairs(most=3), beta=st.just(0.5) | OPTION)
def test_jsd(arguments, beta):
    value = outcome(vocabulary.jsd, *arguments, beta=beta)
    assert value is None or (whole(value) and np.all(value >= 0))


@few
@given(data=st.data())
def test_exact_kl_from_hidden(data):
    sides = st.integers(1, 3)
    n, d, v = data.draw(sides), data.draw(sides), data.draw(sides)
    shapes = [(n, d), (v, d), (n, d), (v, d)]
    given_ = [data.draw(st.one_of(of_shape(s), of_shape(s, st.floats(-5, 5)), ODD)) for s in shapes]
    value = outcome(vocabulary.exact_kl_from_hidden, *given_)
    assert value is None or (whole(value) and np.all(value >= 0))


@few
@given(arguments=pairs(), mask=MASK)
def test_topk_kl(arguments, mask):
    value = outcome(vocabulary.topk_kl, *arguments, mask=mask)
    assert value is None or whole(value)


# --- Files ----------------------------------------------------------------------------------------

SIMPLE = st.none() | st.booleans() | NUMBERS | st.integers() | st.text(max_size=3)
KEYS = st.sampled_from(["log_q", "log_p", "group", "mask", "logq", "x"])
NESTED = st.lists(SIMPLE, max_size=3) | st.dictionaries(KEYS, SIMPLE, max_size=4)
JSON = st.one_of(SIMPLE, NESTED, st.lists(NESTED, max_size=2), st.dictionaries(KEYS, NESTED))
ROW = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"log_q": JSON | st.floats(-9, 0), "log_p": JSON | st.floats(-9, 0)},
        optional={"group": JSON, "mask": JSON},
    ),
    st.integers(1, 3).flatmap(
        lambda n: st.fixed_dictionaries(
            {key: st.lists(st.floats(-9, 0), min_size=n, max_size=n) for key in ("log_q", "log_p")},
            optional={"mask": st.lists(st.booleans(), min_size=n, max_size=n)},
        )
    ),
)


def npz(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def csv_text(rows):
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


NPZ = st.dictionaries(st.sampled_from(["log_q", "log_p", "mask", "group", "x"]), ANY_DTYPE).map(npz)
CONTENT = {
    ".jsonl": st.lists(ROW, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    ".csv": st.lists(
        st.lists(
            st.sampled_from(["log_q", "log_p", "-1", "nan", "", "x", '"', "1e999"]), max_size=4
        ),
        max_size=3,
    ).map(csv_text),
    ".npz": NPZ | st.tuples(NPZ, st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]]),
    ".parquet": st.binary(max_size=50).map(lambda inner: b"PAR1" + inner + b"PAR1"),
    ".txt": st.binary(max_size=9),
}


@pytest.mark.parametrize("ending", CONTENT)
@few
@given(data=st.data())
def test_files_of_garbage(tmp_path_factory, ending, data):
    path = tmp_path_factory.getbasetemp() / f"scores{ending}"
    path.write_bytes(data.draw(CONTENT[ending] | st.binary(max_size=60)))
    read = outcome(kl.read_log_probabilities, path)
    if read is not None:
        assert read.log_q.shape == read.log_p.shape
        estimate = outcome(
            kl.estimate_kl, read.log_q, read.log_p, mask=read.mask, groups=read.groups
        )
        if estimate is not None:
            sound(estimate)


# --- Exact values ---------------------------------------------------------------------------------

FAMILIES = {
    "Normal": 2,
    "Exponential": 1,
    "Poisson": 1,
    "Bernoulli": 1,
    "Geometric": 1,
    "Laplace": 2,
    "Gamma": 2,
    "Beta": 2,
    "Categorical": 1,
    "MultivariateNormal": 2,
}
PARAMETER = st.one_of(st.floats(0.01, 0.99), st.floats(1e-3, 1e3), OPTION)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=max(20, EXAMPLES // 3))
@given(data=st.data())
def test_families(name, data):
    family, laws = getattr(families, name), []
    for _ in range(2):
        if name in ("Categorical", "MultivariateNormal"):
            arguments = [data.draw(ODD) for _ in range(FAMILIES[name])]
        else:
            arguments = [data.draw(PARAMETER) for _ in range(FAMILIES[name])]
        laws.append(outcome(family, *arguments))
    if None not in laws:
        found = outcome(families.moments, *laws)
        if found is not None:
            assert whole([found.kl, found.chi_squared]), (laws, found)
            assert found.kl >= 0


@few
@given(logits=ODD)
def test_softmax(logits):
    law = outcome(policies.softmax, logits)
    assert law is None or np.allclose(np.sum(law, axis=-1), 1)


@few
@given(
    arguments=pairs(3, 1),
    estimator=st.sampled_from(["k1", "k2", "k4"]),
    placement=st.sampled_from(["reward", "loss", ""]),
)
def test_expected_gradient(arguments, estimator, placement):
    outcome(policies.expected_gradient, *arguments[:2], estimator, placement)


@few
@given(
    tables=st.lists(ODD, min_size=4, max_size=4),
    length=st.sampled_from([1, 3, 0, -1, None, 1.5, "2"]),
    end=st.none() | OPTION,
)
def test_markov_pairs(tables, length, end):
    outcome(sequences.MarkovPair, *tables)
    even = [0.5, 0.5]
    pair = outcome(sequences.MarkovPair, even, even, [[0.9, 0.1], even], [[0.8, 0.2], even], end)
    if pair is not None:
        value = outcome(pair.kl, length, contract=sequences.MarkovPair)
        assert value is None or value >= 0


# --- The contract itself --------------------------------------------------------------------------


def slips(value):
    """Do something.

    Raises
    ------
    TypeError, ValueError
        Never so.
    """
    return value + None


def undocumented(value):
    """Do something."""


def test_a_slip_is_no_documented_error():
    with pytest.raises(AssertionError, match="not documented: TypeError"):
        outcome(slips, 1)
    with pytest.raises(AssertionError, match="documents no error"):
        outcome(undocumented, 1)
    assert documented(kl.k1) == documented(kl.kl_loss) == {"TypeError", "ValueError"}
    assert documented(kl.read_log_probabilities) == {"ValueError", "ImportError"}
    assert outcome(kl.k1, "a") is None
    assert np.isnan(kl.k1(np.array([np.nan]), check=False)).all()
    assert not whole(np.array([np.nan]))
