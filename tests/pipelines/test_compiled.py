"""Compiled networks behind the warm-up, tried with a compiler that counts and in a process of its own."""

import subprocess
import sys

CODE = """
import sys, threading
import torch
from nanoswap.pipelines.compiled import compile_no_more

made = []
def compiler(graph, inputs):
    made.append(tuple(inputs[-1].shape))
    return graph.forward

class Net(torch.nn.Module):
    def forward(self, x): return torch.nn.functional.gelu(x)

net = Net()
net.compile(fullgraph=True, dynamic=False, backend=compiler)
net(torch.ones(2, 8)); net(torch.ones(4, 8))
assert len(made) == 2, made
if sys.argv[1] == "no more":
    compile_no_more()
def work():
    assert net(torch.ones(2, 8)).shape == (2, 8)
    assert net(torch.ones(3, 8)).shape == (3, 8)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(len(made))
"""


def compilations(word: str) -> str:
    made = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_a_forgotten_shape_runs_uncompiled() -> None:
    assert compilations("no more") == "2"


def test_without_it_a_new_shape_is_compiled() -> None:
    assert compilations("more") == "3"


def test_a_process_without_torch_stays_without() -> None:
    load = "import sys\nfrom nanoswap.pipelines.compiled import compile_no_more\ncompile_no_more()\n"
    code = f"{load}assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
