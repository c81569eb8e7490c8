"""What `make libraries` is made of, on small packages; and the chapter against its file.

tests/arrays measures a small package with PyTorch.
"""

import json
import zipfile

import pytest
from released import chapter, extract, stand_ins, wheels
from released.changes import changes

from bookbuild import rules, statements

DATA = json.loads((rules.ROOT / "chapters" / "libraries.json").read_text(encoding="utf-8"))
CHAPTER = rules.ROOT / "chapters" / "libraries.ipynb"

# A trainer as one finds them: helpers, guards, decorators, an option that disappears.
TRAINER = """
import torch
from somewhere import missing

LIMIT = 10
SCALE: float = 2.0


def square(x: missing.Tensor) -> missing.Tensor:
    return SCALE * x * x / 2


@torch.no_grad()
def frozen(x):
    return square(x)


@register("loss")
def registered(x):
    return x


class Trainer:
    beta: float = field(default=0.04, metadata={"help": "coefficient"})
    name: str = make_name()

    def __init__(self, kl_coef=None, *, clip=0.2, weighted=True, **kwargs):
        self.kind = kwargs.get("kind", "k2")

    @staticmethod
    def loss(x, beta, **kwargs):
        return beta * (square(x) if kwargs.get("kind") == "k2" else abs(x))

    def step(self, x, batches):
        if self.beta != 0.0:
            for batch in batches:
                with profile("kl"):
                    kl = square(x)
                with torch.no_grad():
                    kl = kl + batch
        else:
            kl = 0.0
        self.beta = 0.5
        return kl


try:
    import fast
except ImportError:

    def twice(x):
        return 2 * x

else:

    def twice(x):
        return x + x


parser.add_argument("--kl-coef", type=float, default=0.01)
"""


class Torch:
    """As much of PyTorch as the trainer needs."""

    entered = 0

    class no_grad:  # noqa: N801
        def __call__(self, function):
            def quiet(*args):
                Torch.entered += 1
                return function(*args)

            return quiet

        def __enter__(self):
            Torch.entered += 1

        def __exit__(self, *_):
            return None


@pytest.fixture
def source():
    Torch.entered = 0
    return extract.Source("trainer.py", TRAINER)


def test_a_function_comes_with_its_helpers_and_what_changes_its_gradient(source):
    frozen = source.function("frozen", {"torch": Torch})
    assert frozen(3) == 9
    assert Torch.entered == 1
    assert source.used == [{"file": "trainer.py", "function": "frozen", "line": 14}]


def test_a_method_comes_alone(source):
    loss = source.function("Trainer.loss", {})
    assert loss(3, 2, kind="k2") == 18
    assert loss(-3, 2, kind="abs") == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Trainer.losses", "has 0 definitions"),
        ("Trainers.loss", "has 0 definitions"),
        ("twice", "has 2 definitions"),
        ("registered", "decorator register"),
    ],
)
def test_what_is_not_as_the_entry_says_fails(source, name, words):
    with pytest.raises(extract.ExtractionError, match=words):
        source.function(name, {})


def test_a_decorator_is_left_out_only_by_name(source):
    assert source.function("registered", {}, without={"register"})(5) == 5


def test_what_is_imported_must_be_given():
    source = extract.Source("f.py", "from a import b\ndef f(x):\n    return b(x)\n")
    with pytest.raises(NameError):
        source.function("f", {})(1)
    assert source.function("f", {"b": abs})(-1) == 1


def test_a_helper_that_is_bound_twice_fails():
    source = extract.Source("f.py", "C = 1\nC = 2\ndef f(x):\n    return C * x\n")
    with pytest.raises(extract.ExtractionError, match="C is bound 2 times"):
        source.function("f", {})


def test_an_option_that_is_swallowed_fails(source):
    loss = source.function("Trainer.loss", {})
    with pytest.raises(extract.ExtractionError, match="swallows the option kinds"):
        loss(3, 2, kinds="k2")
    unread = extract.Source("f.py", "def f(x, weighted=True):\n    return x\n").function("f", {})
    with pytest.raises(extract.ExtractionError, match="swallows the option weighted"):
        unread(3, weighted=False)


def test_statements_are_cut_out_with_their_guards_and_counted(source):
    run = source.cut("Trainer.step", {"kl"}, count=3)
    trainer = stand_ins.StandIn("self", beta=1.0)
    local = {"torch": Torch, "self": trainer, "square": lambda x: x * x, "x": 3, "batch": 1}
    assert stand_ins.call(run, local)["kl"] == 10
    assert Torch.entered == 1
    off = {"torch": Torch, "self": stand_ins.StandIn("self", beta=0.0)}
    assert run(off)["kl"] == 0
    with pytest.raises(extract.ExtractionError, match="has 3 such statements, not 2"):
        source.cut("Trainer.step", {"kl"}, count=2)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("Trainer.beta", 0.04),
        ("Trainer.name", "make_name()"),
        ("Trainer.__init__(kl_coef)", None),
        ("Trainer.__init__(clip)", 0.2),
        ("--kl-coef", 0.01),
    ],
)
def test_defaults_are_read_and_not_run(source, setting, value):
    assert source.setting(setting) == value
    assert source.used[0]["setting"] == setting


def test_what_is_assigned_in_a_method_is_read(source):
    assert source.assigned("Trainer.step", "self.beta") == 0.5


@pytest.mark.parametrize("setting", ["Trainer.alpha", "Trainer.__init__(alpha)", "--alpha"])
def test_a_default_that_is_gone_fails(source, setting):
    with pytest.raises(extract.ExtractionError, match="has 0 values"):
        source.setting(setting)


def test_settings_of_yaml():
    text = "algorithm:\n  kl:\n    coef: 0.001\n"
    assert extract.yaml_setting("c.yaml", text, "algorithm.kl.coef") == 0.001
    with pytest.raises(extract.ExtractionError, match=r"no algorithm\.kl\.size"):
        extract.yaml_setting("c.yaml", text, "algorithm.kl.size")


def test_a_stand_in_knows_only_what_it_was_given():
    trainer = stand_ins.StandIn("self", beta=1.0)
    with pytest.raises(AttributeError, match="gives self no attribute gamma"):
        trainer.gamma  # noqa: B018
    assert not hasattr(trainer, "gamma")
    assert trainer.beta == 1.0


def test_what_was_given_and_not_read_fails():
    def function(trainer, inputs):
        trainer.stored = inputs.get("mask")
        return trainer.args.beta * inputs["x"]

    def arguments(**more):
        inner = stand_ins.StandIn("args", beta=2.0, **more)
        return stand_ins.StandIn("self", args=inner), stand_ins.Inputs("inputs", x=3.0)

    assert stand_ins.call(function, *arguments()) == 6
    with pytest.raises(stand_ins.UnreadError, match=r"args\.weighted"):
        stand_ins.call(function, *arguments(weighted=True))
    assert stand_ins.call(function, *arguments(weighted=True), watch=False) == 6
    trainer, inputs = arguments()
    inputs.give(advantages=0.0)
    with pytest.raises(stand_ins.UnreadError, match=r"inputs\['advantages'\]"):
        stand_ins.call(function, trainer, inputs)
    with pytest.raises(KeyError):
        inputs["rewards"]


def test_metrics_go_nowhere():
    metrics = stand_ins.Sink()
    metrics["train"]["kl"].append(1.0)
    assert metrics == {}


def wheel(folder, name="fake_trainer-1.0-py3-none-any.whl", **files):
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(zipfile.ZipInfo(file, (2026, 5, 4, 0, 0, 0)), text)
    return path


def test_a_wheel_that_is_there_is_taken_if_its_hash_is_the_pinned_one(tmp_path, monkeypatch):
    path = wheel(tmp_path, **{"fake/loss.py": TRAINER, "x.data/purelib/fake/more.py": "A = 1\n"})
    (tmp_path / "pins.toml").write_text(
        f'[current.fake-trainer]\nversion = "1.0"\nsha256 = "{wheels._hash(path)}"\n'
        'date = "2026-05-04"\n[[older]]\npackage = "fake-trainer"\nversion = "0.9"\n'
        'sha256 = "0"\ndate = "2026-01-01"\n'
    )
    pins = wheels.pins(tmp_path / "pins.toml")
    release = wheels.fetched(pins["fake-trainer"], tmp_path)
    assert release.path == path
    assert release.text("fake/loss.py") == TRAINER
    assert release.text("fake/more.py") == "A = 1\n"
    assert wheels._date(path) == release.date
    with pytest.raises(wheels.ReleaseError, match=r"0 files fake/lost\.py"):
        release.text("fake/lost.py")

    def other(command, **_):
        assert "--require-hashes" in command
        wheel(tmp_path, **{"fake/loss.py": "changed"})
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(wheels.subprocess, "run", other)
    with pytest.raises(wheels.ReleaseError, match="another hash"):
        wheels.fetched(pins["fake-trainer==0.9"], tmp_path)


def test_what_pip_says_is_passed_on(tmp_path, monkeypatch):
    def fail(command, **_):
        return type("Done", (), {"returncode": 1, "stderr": "no such release\n"})

    monkeypatch.setattr(wheels.subprocess, "run", fail)
    with pytest.raises(wheels.ReleaseError, match=r"fake 2\.0: no such release"):
        wheels.fetched(wheels.Release("fake", "2.0", "0", "2026-01-01"), tmp_path)


def test_changes_are_told_in_words():
    old = {"value": "k3", "version": "1", "token": {"1": [0.5, -1.0]}, "default": {"on": False}}
    new = {
        "value": "k3",
        "version": "2",
        "token": {"1": [0.5 + 1e-9, 1.0]},
        "default": {"on": True},
    }
    assert changes(old, new) == [
        "default.on: False before, True now",
        "token.1[1]: -1.0 before, 1.0 now",
    ]
    assert changes({"clamp": "value"}, {}) == ["clamp: value before, None now"]


def test_the_tables_of_the_chapter_are_those_of_the_file():
    cells = {"".join(cell["source"]) for cell in json.loads(CHAPTER.read_text())["cells"]}
    for table in chapter.tables(DATA).values():
        assert table in cells, table.split("\n", 1)[0]


def test_a_changed_row_changes_a_table():
    before = chapter.tables(DATA)
    for name, value in (("value", "k1"), ("so_what", "Nothing."), ("version", "9.9")):
        data = json.loads(json.dumps(DATA))
        data["rows"][0][name] = value
        assert chapter.tables(data) != before


def test_every_row_says_what_its_gradient_is_and_where_it_was_found():
    chapters = sorted((rules.ROOT / "chapters").glob("*.ipynb"))
    labels = {found.label for path in chapters for found in statements.statements(path)}
    for row in DATA["rows"]:
        assert row["so_what"]
        assert all({"file", "line"} <= entry.keys() or "setting" in entry for entry in row["where"])
        if row["place"] != "diagnostic" and not (
            row["place"] == "loss" and row["derivative"] == "zero"
        ):
            assert row["gradients"]["token, on-policy"]["label"] in labels, row["key"]
    measured = [row for row in DATA["rows"] if row["evidence"] == "measured"]
    pinned = {(r["package"], r["version"]) for r in DATA["releases"]}
    assert {(row["package"], row["version"]) for row in measured} <= pinned
