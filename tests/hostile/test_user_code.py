"""Whatever the user's code raises, wherever: one sentence with their file and line, exit 2."""

from __future__ import annotations

import builtins
import itertools
import sys
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.maps.registry import _REGISTERED
from exporter.store import check, open_run
from tests.hostile.workplace import work_in

HEAD = """
import torch
from torch import nn

batches = []

class Odd(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

class Beyond(BaseException):
    pass

def deeper():
    return deeper()

def bang(*_):
    {raised}
"""
MODEL = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        batches.append(len(x))
        return self.head(self.block(x).mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net()
"""
LAYER = """
class Layer(nn.ReLU):
    def forward(self, x):
        {body}

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.net.block[1] = Layer()

    def forward(self, x):
        return self.net(x)

def net():
    return Wrapped()
"""
DATA = """
class Data:
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(index))
"""
FUNCTION = """
class Passing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        bang()
        return gradient
"""

PLACES: dict[str, tuple[str, tuple[str, ...], str]] = {
    # What is raised where: the source after HEAD, the flags, and what the sentence begins with.
    "import": ("bang()", (), "the file 'mine.py' cannot be run"),
    "factory": ("def net():\n    bang()", (), "the factory 'mine.py:net' failed"),
    "model forward": (
        MODEL.replace("        return self.head", "        bang()\n        return self.head"),
        (),
        "a trial forward of Net failed",
    ),
    "layer": (
        MODEL + LAYER.format(body="bang()"),
        (),
        "a trial forward of Wrapped failed in its layer 'net.block.1'",
    ),
    "forward hook": (
        MODEL + "def net():\n    m = Net()\n    m.head.register_forward_hook(bang)\n    return m",
        (),
        "a trial forward of Net failed in its layer 'head'",
    ),
    "replaced forward": (
        MODEL + "def net():\n    m = Net()\n    m.block.forward = bang\n    return m",
        (),
        "a trial forward of Net failed in its layer 'block'",
    ),
    "backward": (
        FUNCTION + MODEL + LAYER.format(body="return Passing.apply(super().forward(x))"),
        (),
        "the model failed on the first image",
    ),
    "gradient hook": (
        MODEL
        + LAYER.format(
            body="y = super().forward(x)\n        y.register_hook(bang)\n        return y"
        ),
        (),
        "the model failed on the first image",
    ),
    "train": (MODEL + "Net.train = bang", (), "the model failed"),
    "moving": (MODEL + "Net._apply = bang", (), "the model failed"),
    "named_modules": (MODEL + "Net.named_modules = bang", (), "the model failed"),
    "comparison": (
        MODEL + "Net.__eq__ = bang\nNet.__hash__ = nn.Module.__hash__",
        (),
        "the model failed",
    ),
    "output": (
        MODEL
        + """
class Output(dict):
    items = bang

class Naming(Net):
    def forward(self, x):
        return Output(scores=super().forward(x))

def net():
    return Naming()
""",
        (),
        "reading the output of Naming failed on an input of 1 × 3 × 32 × 32",
    ),
    "target": (
        MODEL + "def goal(output):\n    bang()",
        ("--target", "mine.py:goal"),
        "the target ",
    ),
    "reshape": (
        MODEL + "def lay(output):\n    bang()",
        ("--reshape", "mine.py:lay"),
        "the reshape function 'mine.py:lay' failed",
    ),
    "map": (
        MODEL
        + """
import exporter
from exporter.maps import Needs

@exporter.method("mine", shows="x", formula="x", kind="weights", needs=Needs(gradients=True))
def mine(terms):
    bang()
""",
        ("--map", "mine.py:mine"),
        "the map 'mine' failed",
    ),
    "data set factory": (
        MODEL + "def data():\n    bang()",
        ("--images", "mine.py:data"),
        "'mine.py:data' failed",
    ),
    "data set length": (
        MODEL + DATA + "Data.__len__ = bang\ndata = Data()",
        ("--images", "mine.py:data"),
        "the data set 'mine.py:data' has no length",
    ),
    "data set items": (
        MODEL + DATA + "Data.__getitem__ = bang\ndata = Data()",
        ("--images", "mine.py:data"),
        "no image of 'mine.py:data' can be read; the first is 'item-000000': item 0 of the data "
        "set failed",
    ),
}
"""Places of a user's code, and how a sentence about each begins."""


def _made(kind: type[BaseException]) -> str:
    given = {
        "UnicodeDecodeError": "'utf-8', b'x', 0, 1, 'no'",
        "UnicodeEncodeError": "'utf-8', 'x', 0, 1, 'no'",
        "UnicodeTranslateError": "'x', 0, 1, 'no'",
        "BaseExceptionGroup": "'two', [ValueError(1)]",
        "ExceptionGroup": "'two', [ValueError(1), KeyError(2)]",
    }
    return f"raise {kind.__name__}({given.get(kind.__name__, repr('said so'))})"


BUILT_IN = {
    name: _made(kind)
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__name__ == name
}
ODD = {
    "SystemExit(0)": "import sys; sys.exit(0)",
    "SystemExit(text)": "raise SystemExit('bye')",
    "SystemExit()": "exit()",
    "GeneratorExit": "raise GeneratorExit('said so')",
    "recursion": "deeper()",
    "assertion": "assert False",
    "lookup": "{}['x']",
    "several lines": "raise RuntimeError('first\\n\\nsecond')",
    "no message": "raise KeyError",
    "no text": "raise Odd",
    "no Exception": "raise Beyond('said so')",
    "markup": "raise ValueError('[bold]said so[/] \\x1b[2J')",
    "chained": "raise KeyError('x') from ValueError('y')",
}
RAISED = BUILT_IN | ODD
FEW = ("KeyError", "StopIteration", "OSError", "AssertionError", "MemoryError", "SystemExit(0)")

pairs = list(itertools.product(PLACES, RAISED))
quick = [(place, FEW[n % len(FEW)]) for n, place in enumerate(PLACES)]
quick += [("factory", raised) for raised in (*FEW, *ODD)]
rest = [pair for pair in pairs if pair not in quick and pair[1] in (*FEW, *ODD, "RuntimeError")]
ANYTHING = ("layer", "model forward", "factory", "target", "reshape", "backward")
"""Where every built-in exception is raised; for data sets see test_pictures.py."""
rest += [
    pair for pair in itertools.product(ANYTHING, BUILT_IN) if pair not in rest and pair not in quick
]
# A RuntimeError is how autograd says that there is no backward: planning does without one.
_REFUSALS = (
    "several lines",
    "recursion",
    *(name for name in BUILT_IN if issubclass(getattr(builtins, name), RuntimeError)),
)
rest = [
    pair
    for pair in rest
    if pair[0] not in ("backward", "gradient hook") or pair[1] not in _REFUSALS
]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of six photographs."""
    work_in(tmp_path, monkeypatch, photographs=6)
    monkeypatch.setattr("exporter.console.FIRST", 1e6)  # no progress, however slow
    monkeypatch.setitem(_REGISTERED, "mine", None)  # so that it is as before after each test
    del _REGISTERED["mine"]
    return tmp_path


def run(*more: str) -> int:
    """Run the command on the user's file."""
    flags = "run --model mine.py:net --images photos --out out --config run.toml --writer html "
    return main([*f"{flags}--map gradcam --shard-size 2 --batch-size 2".split(), *more])


def line_of(source: str, text: str) -> int:
    """Return the number of the only line that is a text."""
    (number,) = [n for n, line in enumerate(source.splitlines(), 1) if line.strip() == text]
    return number


@pytest.mark.parametrize(
    ("place", "raised"),
    [*quick, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in rest)],
)
def test_what_is_raised_is_a_sentence_with_the_users_file_and_line(
    work: Path, capfd: pytest.CaptureFixture[str], place: str, raised: str
) -> None:
    body, flags, begins = PLACES[place]
    source = HEAD.format(raised=RAISED[raised]) + body
    (work / "mine.py").write_text(source)
    assert run(*flags) == 2
    said = capfd.readouterr().err
    if (place, raised) == ("data set items", "MemoryError"):
        begins = "there is not enough memory to read 'item-000000': item 0 of the data set failed"
    if place in ("backward", "gradient hook") and said.startswith("error: a trial"):
        begins = "a trial backward of Wrapped failed on an input of 1 × 3 × 32 × 32"
    assert said.startswith(f"error: {begins}")
    assert said.count("\n") == 1
    where = "return deeper()" if raised == "recursion" else RAISED[raised]
    _, place_told, advice = said.partition(f"(mine.py, line {line_of(source, where)})")
    assert place_told
    assert advice.lstrip(")").startswith("; "), "it says nothing to do"
    assert ("sys.exit" if raised.startswith("SystemExit") else _shown(raised)) in said
    assert "\x1b" not in said
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    "raised",
    [_REFUSALS[0], *(pytest.param(raised, marks=pytest.mark.slow) for raised in _REFUSALS[1:])],
)
def test_a_backward_that_is_refused_is_said_with_the_users_file_and_line(
    work: Path, capfd: pytest.CaptureFixture[str], raised: str
) -> None:
    source = HEAD.format(raised=RAISED[raised]) + PLACES["backward"][0]
    (work / "mine.py").write_text(source)
    assert run("--layer", "net.block.0") == 2
    said = capfd.readouterr().err
    assert said.startswith("error: none of the layers can be explained (net.block.0: no gradient")
    assert "the model's backward pass fails" in said
    where = "return deeper()" if raised == "recursion" else RAISED[raised]
    assert f"(mine.py, line {line_of(source, where)})" in said
    assert _shown(raised) in said
    assert said.endswith("; choose others\n")
    assert said.count("\n") == 1
    assert not (work / "out").exists()


def _shown(raised: str) -> str:
    names = {
        "recursion": "RecursionError: ",
        "assertion": "AssertionError",
        "lookup": "KeyError: 'x'",
        "several lines": "RuntimeError: first second (",
        "no message": "KeyError (",
        "no text": "Odd (",
        "no Exception": "Beyond: said so",
        "markup": "ValueError: [bold]said so[/]",
        "chained": "KeyError: 'x'",
    }
    return names.get(raised, raised)


@pytest.mark.parametrize("raised", ["KeyError", "SystemExit(0)"])
@pytest.mark.parametrize("place", ["layer", "factory", "data set factory"])
def test_debug_shows_the_traceback_too(
    work: Path, capfd: pytest.CaptureFixture[str], place: str, raised: str
) -> None:
    body, flags, begins = PLACES[place]
    (work / "mine.py").write_text(HEAD.format(raised=RAISED[raised]) + body)
    assert run(*flags, "--debug") == 2
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert 'mine.py", line' in said
    assert said.splitlines()[-1].startswith(f"error: {begins}")


@pytest.mark.parametrize(
    "before",
    ["sys.stderr = None", "sys.stderr.close()", "os.mkdir('x'), os.chdir('x'), os.rmdir('../x')"],
)
def test_what_the_users_code_does_to_the_process_hides_no_error(
    work: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    body = PLACES["layer"][0].replace("bang()", f"{before}; bang()")
    (work / "mine.py").write_text(
        HEAD.format(raised="raise KeyError('x')") + "import os, sys" + body
    )
    assert run() == 2
    said = capfd.readouterr().err
    assert said.startswith("error: a trial forward of Wrapped failed in its layer 'net.block.1'")
    assert said.count("\n") == 1


def test_ctrl_c_in_the_users_code_is_an_interrupt(work: Path) -> None:
    (work / "mine.py").write_text(
        HEAD.format(raised="raise KeyboardInterrupt") + PLACES["layer"][0]
    )
    assert run() == 130


LATE = """
def late(x):
    if batches.count(2) > 2:
        bang()
    return x
"""
LATE_PLACES = {
    "layer": (MODEL + LAYER.format(body="return late(super().forward(x))"), ()),
    "backward": (
        FUNCTION.replace("bang()", "late(gradient)")
        + MODEL.replace("self.block(x).mean", "Passing.apply(self.block(x)).mean"),
        (),
    ),
    "reshape": (
        MODEL + "def lay(x):\n    return late(x[:, :, :, :])",
        ("--reshape", "mine.py:lay"),
    ),
    "target": (MODEL + "def goal(x):\n    return late(x)[:, 0]", ("--target", "mine.py:goal")),
}


@pytest.mark.parametrize(
    ("place", "raised"),
    [
        ("layer", "KeyError"),
        ("backward", "SystemExit(0)"),
        *(
            pytest.param(place, raised, marks=pytest.mark.slow)
            for place in LATE_PLACES
            for raised in FEW
        ),
    ],
)
def test_what_is_done_before_a_failure_stays_and_is_gone_on_with(
    work: Path, capfd: pytest.CaptureFixture[str], place: str, raised: str
) -> None:
    body, flags = LATE_PLACES[place]
    head = HEAD.format(raised=RAISED[raised])
    (work / "mine.py").write_text(head + LATE + body)
    assert run(*flags) == 2
    said = capfd.readouterr().err
    assert "from '4.png' to '5.png'" in said
    assert "(mine.py, line" in said
    assert "--resume" in said
    assert len(open_run(work / "out").shards) == 2
    (work / "mine.py").write_text(head + LATE.replace("bang()", "pass") + body)
    for name in [name for name in sys.modules if name.startswith("_exporter_file_mine")]:
        del sys.modules[name]
    assert run(*flags, "--resume") == 0
    assert check(work / "out") == ()
    assert len(list(open_run(work / "out").rows())) == 6
