"""The guide's Slurm example on a cluster of one node: an array of shards, of which one is killed and requeued, and a merge that waits for them."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
# Slurm needs root for its daemons, which a container's tests usually are.
pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and (os.geteuid() != 0 or not all(shutil.which(name) for name in PROGRAMS)),
    reason="needs root, slurm-wlm and munge (setup.sh installs them)",
)
LONGEST_WAIT = 120


def wait_for(what, is_so):
    """Waits for a state."""
    end = time.monotonic() + LONGEST_WAIT
    while not is_so():
        assert time.monotonic() < end, f"no {what} after {LONGEST_WAIT} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands reach a cluster of this machine alone."""
    root = tmp_path_factory.mktemp("slurm")
    root.chmod(0o755)
    key, socket = root / "munge.key", root / "munge.socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    munge = root / "munge"
    munge.mkdir(mode=0o755)
    socket = munge / "socket"
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    config = root / "slurm.conf"
    config.write_text(f"""
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CredType=cred/munge
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
    (root / "state").mkdir()
    (root / "spool").mkdir()
    environment = {**os.environ, "SLURM_CONF": str(config)}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket}", f"--pid-file={munge}/pid",
              f"--log-file={munge}/log", f"--seed-file={munge}/seed"]
    daemons = [subprocess.Popen(munged, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    try:
        wait_for("munge", socket.exists)
        for daemon in ("slurmctld", "slurmd"):
            with open(root / f"{daemon}.out", "w") as out:
                daemons.append(subprocess.Popen([daemon, "-D"], env=environment, stdout=out, stderr=out))
        idle = ["sinfo", "--noheader", "--format=%T"]
        wait_for("node", lambda: subprocess.run(idle, env=environment, capture_output=True, text=True).stdout.strip() == "idle")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=LONGEST_WAIT)


def from_guide():
    """The two scripts of docs/guide/many-adapters.md: the array's and the one that submits it with the merge."""
    text = (ROOT / "docs/guide/many-adapters.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    array = next(block for block in blocks if block.startswith("#!/bin/sh\n#SBATCH"))
    submit = next(block for block in blocks if "sbatch --parsable" in block)
    return array, submit


def test_an_array_with_a_task_that_is_killed_and_its_merge(cluster, condlora, notebooks_data, tmp_path):
    (tmp_path / "runs").symlink_to(notebooks_data / "adapters")
    (tmp_path / "base").symlink_to(notebooks_data / "base/all-MiniLM-L6-v2-qv")
    array, submit = from_guide()
    # The third task stops before it begins, the first time, until it is killed as by a node that fails.
    stop = '[ "$SLURM_ARRAY_TASK_ID" != 3 ] || [ -e third ] || { echo $$ > third; sleep 600; }\n'
    (tmp_path / "shards.sh").write_text(array.replace("condlora analyze", stop + "condlora analyze", 1))
    program = os.environ.get("CONDLORA", ROOT / "target/release/condlora")
    environment = {**cluster, "PATH": f"{os.path.dirname(program)}:{os.environ['PATH']}"}
    environment.pop("CI", None)

    def slurm(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    submitted = slurm("sh", "-ec", submit)
    merge = re.search(r"Submitted batch job (\d+)", submitted).group(1)
    wait_for("third task", lambda: (tmp_path / "third").exists() and (tmp_path / "third").read_text().strip())
    job = slurm("squeue", "--noheader", "--format=%F_%K", "--states=running").split()
    third = next(name for name in job if name.endswith("_3"))
    os.kill(int((tmp_path / "third").read_text()), signal.SIGSTOP)
    slurm("scontrol", "requeue", third)
    # Slurm holds a requeued job for a while, unless it is told that it may begin.
    def is_pending():
        return "PENDING" in slurm("squeue", "--noheader", "--format=%T", f"--jobs={third}")

    wait_for("requeued task", is_pending)
    slurm("scontrol", "update", f"JobId={third}", "StartTime=now")
    wait_for("merge", lambda: merge not in slurm("squeue", "--noheader", "--format=%i").split())
    log = "".join(path.read_text() for path in sorted(tmp_path.glob("slurm-*.out")))
    assert log.count("base weights are solved; condlora merge compares them") == 4, log
    assert (tmp_path / "results/manifest.json").is_file(), log

    condlora("analyze", "runs/", "--base", "base", "-o", "whole", cwd=tmp_path)
    tables = sorted(path.name for path in (tmp_path / "whole").glob("*.csv"))
    assert len(tables) > 5
    for name in tables:
        assert (tmp_path / "results" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    # Submitted again, every task finds its shard.
    again = slurm("sbatch", "--parsable", "--wait", "shards.sh").strip()
    said = "".join(path.read_text() for path in tmp_path.glob(f"slurm-{again}_*.out"))
    assert said.count("base weights are solved already") == 4, said
