"""Somebody's own program on a GPU that is not there: it runs as `python` would run it, until it has shown enough."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from vramfit.errors import UnreadableFileError
from vramfit.trace.ending import Ending, Stop
from vramfit.trace.limits import Limits
from vramfit.trace.script import Script, run_script
from vramfit.trace.virtual_gpu import VirtualGPU

Run = Callable[..., tuple[Ending, VirtualGPU]]
TRAIN = """
    import torch
    model = torch.nn.Linear(256, 256).cuda()
    optimizer = torch.optim.SGD(model.parameters())
    while True:
        model(torch.randn(8, 256, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write a program, run it on an imagined card, return how it ended and the card."""

    def go(
        text: str, *arguments: str, steps: int | None = None, seconds: float | None = None
    ) -> tuple[Ending, VirtualGPU]:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text))
        with VirtualGPU("rtx-4090-24gb") as gpu:
            ending = run_script(Script(path=path, arguments=arguments), Limits(steps=steps, seconds=seconds))
        return ending, gpu

    return go


def test_program_is_main_with_its_arguments_and_folder(run: Run, tmp_path: Path) -> None:
    """__name__, sys.argv, __file__, imports from its folder and pickling by name work; afterwards all is as before."""
    (tmp_path / "beside_it.py").write_text("VALUE = 7")
    before, argv, path = sys.modules["__main__"], list(sys.argv), list(sys.path)
    ending, _ = run(
        """
        import pickle, sys
        import beside_it
        class Mine: pass
        assert __name__ == "__main__" and sys.argv[1:] == ["--batch", "8"] and __file__ == sys.argv[0]
        assert type(pickle.loads(pickle.dumps(Mine()))) is Mine and beside_it.VALUE == 7
        """, "--batch", "8",
    )  # fmt: skip
    assert (Stop.END, 0, "") == (ending.stop, ending.exit_code, ending.traceback)
    assert (before, argv, path) == (sys.modules["__main__"], sys.argv, sys.path)


def test_program_stops_after_optimizer_steps(run: Run) -> None:
    """An endless program ends after as many steps as asked for, and no `except Exception` of its own holds it up."""
    ending, gpu = run(
        TRAIN.replace("optimizer.step()", "\n        try: optimizer.step()\n        except Exception: pass"), steps=2
    )
    assert (Stop.STEPS, 2, 0) == (ending.stop, ending.num_steps, ending.exit_code)
    assert 2 == len(gpu.report().steps)


def test_two_optimizers_are_both_waited_for(run: Run) -> None:
    """Of a pair that alternates, each has taken the steps asked for when the program stops."""
    ending, _ = run(
        """
        import torch
        nets = [torch.nn.Linear(8, 8).cuda() for _ in range(2)]
        both = [torch.optim.SGD(net.parameters()) for net in nets]
        count = [0, 0]
        for _ in range(9):
            for i, (net, optimizer) in enumerate(zip(nets, both)):
                net(torch.randn(2, 8, device="cuda")).sum().backward()
                count[i] += 1
                print(count)
                optimizer.step()
        """, steps=2,
    )  # fmt: skip
    assert (Stop.STEPS, 2) == (ending.stop, ending.num_steps)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system cannot interrupt a program")
def test_program_stops_when_its_time_is_up(run: Run) -> None:
    """An endless loop without a step ends too."""
    ending, _ = run("while True: pass", seconds=0.2)
    assert (Stop.TIME, 0) == (ending.stop, ending.num_steps)


def test_crash_shows_the_programs_own_lines_alone(run: Run) -> None:
    """The traceback names the program's lines and its error; our files and the modes are not in it."""
    ending, _ = run(
        """
        import torch
        def broken(x):
            return torch.nn.Linear(4, 4).cuda()(x)
        broken(torch.randn(2, 5, device="cuda"))
        """
    )
    assert (Stop.CRASH, 1) == (ending.stop, ending.exit_code)
    assert 'program.py", line 5, in <module>' in ending.traceback
    assert "in broken" in ending.traceback
    assert "RuntimeError" in ending.traceback
    assert "vramfit" not in ending.traceback
    assert "__torch_function__" not in ending.traceback


def test_exit_codes_are_the_programs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """sys.exit(3) is 3, a text is 1 and printed, Ctrl-C is 130."""
    assert (Stop.EXIT, 3) == (run("import sys; sys.exit(3)")[0].stop, run("import sys; sys.exit(3)")[0].exit_code)
    assert 1 == run("import sys; sys.exit('no data')")[0].exit_code
    assert "no data" in capsys.readouterr().err
    assert (Stop.INTERRUPT, 130) == ((e := run("raise KeyboardInterrupt")[0]).stop, e.exit_code)


def test_what_was_seen_before_a_crash_is_reported(run: Run) -> None:
    """The report of a program that crashed holds what it had allocated."""
    ending, gpu = run("import torch; x = torch.empty(2**20, device='cuda'); raise ValueError(x.shape)")
    assert Stop.CRASH is ending.stop
    assert 4 * 2**20 == gpu.report().allocated_peak_bytes, "2^20 floats of four bytes"


def test_workers_that_load_data_become_none(run: Run) -> None:
    """A DataLoader with workers and pinned memory gives the same batches from this process, and that is said."""
    ending, _ = run(
        """
        import torch
        from torch.utils.data import DataLoader
        given = {"num_workers": 2, "pin_memory": True, "persistent_workers": True, "prefetch_factor": 4}
        loader = DataLoader(list(range(8)), 4, **given)
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]] and loader.num_workers == 0
        """
    )
    assert (Stop.END, "") == (ending.stop, ending.traceback)
    assert ("DataLoader: 2 worker processes become none; batches are the same",) == ending.changes


def test_a_full_card_is_said_as_pytorch_says_it(run: Run) -> None:
    """A program that asks for more than the card has gets PyTorch's own error with what was alive."""
    ending, _ = run("import torch; x = torch.empty(2**40, device='cuda')")
    assert Stop.MEMORY is ending.stop
    assert "CUDA out of memory. Tried to allocate 4096.00 GiB" in ending.traceback


@pytest.mark.parametrize("text", ["def f(:", "x = '\x00'"])
def test_what_is_no_python_is_refused(tmp_path: Path, text: str) -> None:
    """A file that cannot be compiled is the input's fault, and is not run."""
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UnreadableFileError, match="expected a Python program"):
        run_script(Script(path=path), Limits())


def test_modules_run_as_python_m_runs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative imports work, __main__.py is found, and a module that is not there is refused."""
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("VALUE = 3")
    (package / "__main__.py").write_text(
        "from .inner import VALUE\nassert VALUE == 3 and __package__ == 'some_package'"
    )
    monkeypatch.chdir(tmp_path)
    assert (Stop.END, "") == ((e := run_script(Script(module="some_package"), Limits())).stop, e.traceback)
    with pytest.raises(UnreadableFileError, match="no such module"):
        run_script(Script(module="no_such_package_here"), Limits())


def test_accelerator_answers_as_cuda_does(run: Run) -> None:
    """torch.accelerator names the imagined card, and DataParallel over it is the module itself."""
    ending, gpu = run(
        """
        import torch
        assert torch.accelerator.is_available() and torch.accelerator.device_count() == 1
        device = torch.accelerator.current_accelerator()
        model = torch.nn.DataParallel(torch.nn.Linear(256, 256)).cuda()
        optimizer = torch.optim.AdamW(model.parameters())
        assert device.type == "cuda" and model(torch.randn(4, 256)).device.type == "cuda"
        model(torch.randn(4, 256)).sum().backward()
        optimizer.step()
        """
    )
    assert (Stop.END, "") == (ending.stop, ending.traceback)
    assert 2 * 4 * 257 * 256 == gpu.report().share("optimizer_state"), "two moments of four bytes"


def test_a_shape_that_depends_on_data_is_refused_with_the_line(run: Run) -> None:
    """Without a hint the operator and the program's line are named."""
    ending, _ = run("import torch\nx = torch.ones(8, device='cuda')\ny = x[x > 0]")
    assert Stop.CRASH is ending.stop
    assert "program.py:3" in ending.traceback
    assert "--hint" in ending.traceback


def test_initialisers_that_draw_until_it_fits_come_to_an_end(run: Run) -> None:
    """trunc_normal_ ends on the device although no value is known, and draws real values on the host."""
    ending, _ = run(
        """
        import torch
        torch.nn.init.trunc_normal_(torch.empty(64, 64, device="cuda"), std=0.02)
        host = torch.nn.init.trunc_normal_(torch.empty(64, 64), a=-0.5, b=0.5)
        assert host.abs().max() <= 0.5
        """, seconds=20,
    )  # fmt: skip
    assert (Stop.END, "") == (ending.stop, ending.traceback)
