"""The launch files, run as far as they run without their clusters: on two processes, and as two nodes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "train" / "launch"
SETTINGS = ["--batch-size", "8", "--max-epochs", "2", "--patience", "9", "--trackers"]
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}  # fmt: skip


def arguments(dataset: Path, run: Path, *more: str) -> list[str]:
    return ["id", "--data", str(dataset), "--out", str(run), *SETTINGS, *more]


def cost(run: Path) -> dict:
    return json.loads((run / "cost.json").read_text())


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def alone(tiny_dataset_path, tmp_path_factory) -> list[float]:
    """Losses of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, "-m", "mmrec", "train", *arguments(tiny_dataset_path, run)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    return losses(run)


def test_one_machine_starts_the_processes_that_it_is_told(tiny_dataset_path, tmp_path, alone):
    run = tmp_path / "run"
    command = [str(LAUNCH / "one_machine.sh"), *arguments(tiny_dataset_path, run)]
    done = subprocess.run(command, env={**ENVIRONMENT, "PROCESSES": "2"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert cost(run)["processes"] == 2
    assert losses(run) == pytest.approx(alone, abs=1e-5)


def finish(nodes: list[subprocess.Popen], timeout: float = 300) -> list[str]:
    """Messages of the nodes, each of which must end well."""
    said = []
    try:
        for node in nodes:
            said.append(node.communicate(timeout=timeout)[1])
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
    assert [node.returncode for node in nodes] == [0] * len(nodes), said
    return said


def start(command: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        command, env={**ENVIRONMENT, **environment}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_two_agents_with_addresses_of_their_own_are_two_nodes(tiny_dataset_path, tmp_path, alone):
    run = tmp_path / "run"
    command = [str(LAUNCH / "several_nodes.sh"), *arguments(tiny_dataset_path, run)]
    place = {"NODES": "2", "RENDEZVOUS": "127.0.0.2:29517", "PROCESSES": "1", "JOB": "two"}
    finish([start(command, **place, ADDRESS=address) for address in ("127.0.0.2", "127.0.0.3")])
    assert cost(run)["processes"] == 2
    assert losses(run) == pytest.approx(alone, abs=1e-5)


@contextlib.contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Network namespaces joined by one cable, 10.77.0.1 and 10.77.0.2; skips where the system does not allow it."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"mmrec-{os.getpid()}-{n}" for n in (1, 2)]
    commands = [["netns", "add", name] for name in names]
    commands += [["link", "add", "mmrecveth1", "type", "veth", "peer", "name", "mmrecveth2"]]
    for n, name in enumerate(names, 1):
        commands += [["link", "set", f"mmrecveth{n}", "netns", name]]
        commands += [["-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", f"mmrecveth{n}"]]
        commands += [["-n", name, "link", "set", device, "up"] for device in (f"mmrecveth{n}", "lo")]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_hosts_on_a_network_are_two_nodes(tiny_dataset_path, tmp_path, alone):
    run = tmp_path / "run"
    with two_hosts() as hosts:
        command = [str(LAUNCH / "several_nodes.sh"), *arguments(tiny_dataset_path, run)]
        place = {"NODES": "2", "RENDEZVOUS": "10.77.0.1:29400", "PROCESSES": "1", "JOB": "hosts"}
        nodes = []
        for n, host in enumerate(hosts, 1):
            own = {"ADDRESS": f"10.77.0.{n}", "GLOO_SOCKET_IFNAME": f"mmrecveth{n}"}
            nodes.append(start(["ip", "netns", "exec", host, *command], **place, **own))
        finish(nodes)
    assert cost(run)["processes"] == 2
    assert losses(run) == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
def test_slurm_starts_one_agent_a_node(tiny_dataset_path, tmp_path, alone):
    """With the two commands of Slurm that the file calls: `scontrol` lists the nodes, `srun` runs on each of them."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text("#!/bin/bash\nprintf '127.0.0.2\\n127.0.0.3\\n'\n")
    (tools / "srun").write_text(
        '#!/bin/bash\nshift\nADDRESS=127.0.0.2 "$@" & first=$!\nADDRESS=127.0.0.3 "$@" & second=$!\n'
        "wait $first && wait $second\n"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    run = tmp_path / "run"
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "PORT": "29519"}
    path = f"{tools}:{ENVIRONMENT['PATH']}"
    command = ["bash", str(LAUNCH / "slurm.sbatch"), *arguments(tiny_dataset_path, run)]
    finish([start(command, **slurm, PATH=path, PROCESSES="1")])
    assert cost(run)["processes"] == 2
    assert losses(run) == pytest.approx(alone, abs=1e-5)


def container() -> dict:
    (job,) = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())["spec"]["replicatedJobs"]
    (found,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return found


def test_kubernetes_has_as_many_pods_as_its_processes_expect_nodes():
    (job,) = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())["spec"]["replicatedJobs"]
    spec, environment = job["template"]["spec"], {entry["name"]: entry["value"] for entry in container()["env"]}
    assert spec["parallelism"] == spec["completions"] == int(environment["NODES"])
    assert container()["resources"]["limits"]["nvidia.com/gpu"] == int(environment["PROCESSES"])


@pytest.mark.slow
def test_the_command_of_the_kubernetes_pods_trains(tiny_dataset_path, tmp_path, alone):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shop").symlink_to(tiny_dataset_path)
    command = container()["args"][0].replace("train hybrid", "train id") + " " + " ".join(SETTINGS)
    place = {"NODES": "2", "PROCESSES": "1", "RENDEZVOUS": "127.0.0.2:29521"}
    pods = [
        subprocess.Popen(
            [*container()["command"], command.replace("-m mmrec", f"--local_addr={address} -m mmrec")],
            cwd=tmp_path, env={**ENVIRONMENT, **place}, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        for address in ("127.0.0.2", "127.0.0.3")
    ]  # fmt: skip
    finish(pods)
    assert losses(tmp_path / "runs" / "shop") == pytest.approx(alone, abs=1e-5)


def test_accelerate_launch_starts_the_same_run(tiny_dataset_path, tmp_path, alone):
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--cpu"]
    command = [*launcher, "-m", "mmrec", "train", *arguments(tiny_dataset_path, run)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == pytest.approx(alone, abs=1e-5)


def test_a_process_that_is_killed_stops_the_others_with_a_message_that_names_it(tiny_dataset_path, tmp_path):
    """Without a launcher that ends them: each process is started by hand, as some clusters do."""
    run = tmp_path / "run"
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29523", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    more = ["--max-epochs", "100000", "--timeout-s", "60"]
    given = [word for word in arguments(tiny_dataset_path, run) if word not in ("--max-epochs", "2")] + more
    command = [sys.executable, "-m", "mmrec", "train", *given]
    store = subprocess.Popen(
        [sys.executable, "-c", "import time; from torch.distributed import TCPStore; "
         "s = TCPStore('127.0.0.1', 29523, is_master=True, wait_for_workers=False); time.sleep(300)"],
        env=ENVIRONMENT,
    )  # fmt: skip
    agent = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
    ranks = [start(command, **place, **agent, RANK=str(n), LOCAL_RANK=str(n)) for n in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while not (run / "latest").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (run / "latest").exists()
        time.sleep(3)  # a few beats
        ranks[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, said = ranks[0].communicate(timeout=60)
        assert time.monotonic() - began < 30
        assert ranks[0].returncode == 2, said[-2000:]
        last = said.strip().splitlines()[-1]
        assert f"rank 1 ({os.uname().nodename}, process {ranks[1].pid}) is gone, so rank 0" in last
        assert "Traceback" not in said
    finally:
        for process in (store, *ranks):
            process.kill()


def test_a_rendezvous_that_nobody_answers_is_refused_in_one_line(tiny_dataset_path, tmp_path):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29525", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    command = [
        sys.executable,
        "-m",
        "mmrec",
        "train",
        *arguments(tiny_dataset_path, tmp_path / "run", "--timeout-s", "3"),
    ]
    done = subprocess.run(command, env={**ENVIRONMENT, **place}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "the other processes cannot be reached at 127.0.0.1:29525 within 3 s" in done.stderr
    assert "Traceback" not in done.stderr
