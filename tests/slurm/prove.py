"""Run a study on a real Slurm, with faults, and on this machine alone, and compare.

`python tests/slurm/prove.py` needs root on Debian; installs its slurm-wlm and munge if they are
absent. Starts a munged, a slurmctld and three slurmds with a key and ports of their own, and ends
them, and them alone; refuses where /etc/slurm has a slurm.conf. Writes benchmarks/slurm.md.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psutil
import yaml

from modvar_lib.settings import Settings

ROOT = Path(__file__).parents[2]
ETC = Path("/etc/slurm")
NODES = ("n1", "n2", "n3")
STUDY = {
    "study": "proof",
    "regime": ["fixed", "varying"],
    "seeds": "0-3",
    "group_size": 2,
    "epochs": 40,
    "period": 10,
}
STUDY |= {"final_epochs": 10, "pairs_per_epoch": 10000, "device": "cpu"}
AT_WORK = range(11, 30)  # seconds of a kernel's processor time: it has started, and not ended
SLURM_CONF = """\
ClusterName=proof
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# a dead node is missed after 20 seconds instead of 300; nodes say what is written here, whatever
# the machine has
SlurmdTimeout=20
ReturnToService=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=32000"
RECORD = """\
# On a real Slurm

Written by `python tests/slurm/prove.py` on {date}: {versions}.

One machine of {cores} cores; a slurmctld and three slurmds that say they have 8 cores and 32 GB each. Slurm's timing is its
default, but for `SlurmdTimeout`: 20 instead of 300 s, so that a dead node is missed soon. There is no accounting (slurmdbd):
states and times are what `scontrol` said while the jobs ran.

The study, on real MNIST, with notebooks 01 to 04 and its site:

```
{settings}
```

First `make reproduce` on this machine alone, then `make reproduce PROFILE=slurm` with `profiles/slurm` as shipped, into another
folder. Both give a group of 2 seeds {threads} threads, here and on the nodes: a group cut into other lots differs in rounding.

## Faults

{faults}

Nodes at the end: {nodes}.

## Result

{verdict}: {same}. Of `runs.csv` the settings are compared: its other columns say when, by what and how long.

Alone: {local:.1f} min. Through Slurm, with the faults, three jobs at once on the same cores: {slurm:.1f} min.

## Jobs

{jobs}

Seconds. *waited*: from the first submission to the (last) start. *ran*: from there to the end. A job whose node died is started
again by Slurm itself, which first misses the node and then holds the job back for two minutes; the others are sent again by
Snakemake. A group of 8 seeds trains for minutes or more; for groups that train for seconds, one machine is faster.
"""


class Cluster:
    """munged, slurmctld and a slurmd per node, as children of this process. Everything of theirs is
    in one folder, but for a link in /etc/slurm: Snakemake's executor drops SLURM_CONF on the nodes,
    so configuration has to be where Slurm looks for it."""

    def __init__(self, folder: Path):
        self.folder, self.children, self.jobs = folder, {}, {}
        self.mark = {
            "MODVAR_PROOF": str(folder)
        }  # daemons and jobs inherit it, and are known by it
        self.env = os.environ | self.mark
        self.link = ETC / "slurm.conf"

    def __enter__(self):
        if os.path.lexists(self.link):
            sys.exit(f"{self.link}: there already; allowed: a machine without a Slurm of its own")
        with socket.create_server(("127.0.0.1", 0)) as one:
            first = one.getsockname()[1]
        ports, host = [first + i for i in range(1 + len(NODES))], socket.gethostname().split(".")[0]
        nodes = "\n".join(
            NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports[1:])
        )
        text = SLURM_CONF.format(folder=self.folder, host=host, ports=ports, nodes=nodes)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        (self.folder / "state").mkdir()
        ETC.mkdir(exist_ok=True)
        self.link.symlink_to(self.folder / "slurm.conf")
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
        try:
            self.start(
                "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files
            )
            wait_for(lambda: (self.folder / "munge.socket").exists(), "munged")
            self.start("slurmctld", "-D")
            for name in NODES:
                self.start("slurmd", "-D", "-N", name, name=name)
            wait_for(
                lambda: (
                    self.ask("sinfo", "-h", "-N", "-o", "%T").split().count("idle") == len(NODES)
                ),
                "nodes",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for child in reversed(self.children.values()):
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)
        for process in self.processes():
            kill(process)
        self.link.unlink(missing_ok=True)

    def start(self, *words, name=None):
        with open(self.folder / f"{name or words[0]}.log", "w") as log:
            child = subprocess.Popen(
                words, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.children[name or words[0]] = child

    def ask(self, *words) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def look(self):
        """What Slurm knows of every job, kept after it forgets; of one that starts again, also its
        first submission and node."""
        for line in self.ask("scontrol", "show", "job", "-o").splitlines():
            job = dict(part.split("=", 1) for part in line.split() if "=" in part)
            if "JobId" in job:
                old = self.jobs.get(job["JobId"], {})
                job["FirstSubmit"], job["Nodes"] = (
                    old.get("FirstSubmit", job["SubmitTime"]),
                    old.get("Nodes", []),
                )
                if job["JobState"] == "RUNNING" and job["NodeList"] not in job["Nodes"]:
                    job["Nodes"].append(job["NodeList"])
                self.jobs[job["JobId"]] = job

    def processes(self, **environment) -> list[psutil.Process]:
        """What this cluster started, with this in its environment too."""
        environment, processes = self.mark | environment, []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if environment.items() <= process.environ().items():
                    processes.append(process)
        return processes

    def kernels(self, job: dict) -> list[psutil.Process]:
        """The notebook kernels of a job that are at work."""
        kernels = []
        for process in self.processes(SLURM_JOB_ID=job["JobId"]):
            with suppress(psutil.Error):
                if (
                    "ipykernel_launcher" in process.cmdline()
                    and int(process.cpu_times().user) in AT_WORK
                ):
                    kernels.append(process)
        return kernels


def node_dies(cluster: Cluster, job: dict) -> str:
    """As if its power had gone: the slurmd, then what watches over the job, then the job."""
    number, node = job["JobId"], job["NodeList"]
    cluster.children[node].kill()
    jobs = cluster.processes(SLURM_JOB_ID=number)
    above = {
        parent for process in jobs for parent in parents(process) if parent.name() == "slurmstepd"
    }
    for process in [*above, *jobs]:
        kill(process)
    return (
        f"node {node} dies: SIGKILL to its slurmd, its slurmstepd and every process of job {number}"
    )


def job_is_killed(cluster: Cluster, job: dict) -> str:
    for process in cluster.kernels(job):
        kill(process)
    return f"SIGKILL to the notebook kernel of job {job['JobId']}"


def job_is_cancelled(cluster: Cluster, job: dict) -> str:
    cluster.ask("scancel", job["JobId"])
    return f"scancel of job {job['JobId']}"


FAULTS = [node_dies, job_is_killed, job_is_cancelled]


def prove(folder: Path) -> str:
    """Both runs, the faults, the comparison; the record, in Markdown."""
    config = folder / "proof.yaml"
    config.write_text(yaml.safe_dump(STUDY))
    make = ["make", "reproduce", f"CONFIG={config}"]
    print("1. On this machine alone", flush=True)
    local = run(make, os.environ | {"MODVAR_RESULTS": str(folder / "local")}, folder / "local.txt")
    print("2. Through Slurm, with faults", flush=True)
    with Cluster(folder) as cluster:
        cluster.env["MODVAR_RESULTS"] = str(folder / "slurm")
        began, faults = time.time(), {}

        def fault():
            cluster.look()
            for number, job in cluster.jobs.items():
                if (
                    len(faults) < len(FAULTS)
                    and job["JobState"] == "RUNNING"
                    and number not in faults
                ):
                    if cluster.kernels(job):
                        what = FAULTS[len(faults)](cluster, job)
                        faults[number] = (
                            f"- after {time.time() - began:.0f} s, a kernel at work: {what}"
                        )
                        print(f"   {faults[number]}", flush=True)

        slurm = run([*make, "PROFILE=slurm"], cluster.env, folder / "slurm.txt", fault)
        nodes = ", ".join(cluster.ask("sinfo", "-h", "-N", "-o", "%N %T").splitlines())
    same = compared(folder / "local" / "proof", folder / "slurm" / "proof")
    unequal = [name for name, equal in same.items() if not equal]
    record = RECORD.format(
        date=f"{datetime.now():%Y-%m-%d}",
        versions=versions(),
        cores=len(os.sched_getaffinity(0)),
        threads=min(2, len(os.sched_getaffinity(0))),
        settings=yaml.safe_dump(STUDY, sort_keys=False, default_flow_style=True, width=110).strip(),
        faults="\n".join(faults.values()),
        nodes=nodes,
        verdict=f"**NOT EQUAL**: {', '.join(unequal)}. Equal"
        if unequal
        else "**Equal, byte for byte**",
        same=f"{', '.join(f'`{name}`' for name in same if same[name] and '/' not in name)}; "
        f"{sum(equal for name, equal in same.items() if name.startswith('groups'))} tables of groups; "
        f"`weights.safetensors` of {sum(equal for name, equal in same.items() if name.startswith('runs/'))} networks",
        local=local / 60,
        slurm=slurm / 60,
        jobs=pd.DataFrame([row(job) for job in cluster.jobs.values()]).to_markdown(index=False),
    )
    if unequal or len(faults) < len(FAULTS):
        sys.exit(f"{record}\nfailed: unequal {unequal}; faults {len(faults)} of {len(FAULTS)}")
    return record


def compared(local: Path, slurm: Path) -> dict[str, bool]:
    """Whether a study's tables and networks are the same, byte for byte; of runs.csv the settings
    alone."""
    same = {}
    for pattern in ("*.csv", "*.md", "groups/*/*/*.csv", "runs/*/*/weights.safetensors"):
        for here in sorted(local.glob(pattern)):
            name = str(here.relative_to(local))
            contents = [side / name for side in (local, slurm) if (side / name).is_file()]
            if here.name == "runs.csv":
                contents = [pd.read_csv(path)[[*Settings().saved()]].to_csv() for path in contents]
            else:
                contents = [path.read_bytes() for path in contents]
            same[name] = len(contents) == 2 and contents[0] == contents[1]
    return same


def row(job: dict) -> dict:
    """Of the table of jobs."""
    known = (job["FirstSubmit"], job["StartTime"], job["EndTime"])
    submitted, started, ended = (
        datetime.fromisoformat(t) if t[:2] == "20" else None for t in known
    )
    return {
        "job": job["JobId"],
        "rule": job.get("Comment", "").removeprefix("rule_"),
        "node": ", then ".join(job["Nodes"]),
        "state": job["JobState"],
        "restarts": job["Restarts"],
        "waited": round((started - submitted).total_seconds()) if started else "",
        "ran": round((ended - started).total_seconds()) if started and ended else "",
    }


def versions() -> str:
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    slurm = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout.strip()
    packages = ("snakemake", "snakemake-executor-plugin-slurm", "papermill", "torch")
    return ", ".join(
        [
            release["PRETTY_NAME"].strip('"'),
            slurm,
            *(f"{name} {version(name)}" for name in packages),
        ]
    )


def install():
    if all(map(shutil.which, ("munged", "slurmctld", "slurmd"))):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            "munged, slurmctld, slurmd: not there; allowed: root on Debian, which installs them"
        )
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "install", "-qq", "slurm-wlm", "munge"], env=env, check=True)


def run(words: list[str], env: dict, log: Path, meanwhile=lambda: None) -> float:
    """Run a command in the project, calling `meanwhile` every second or so; seconds it took."""
    began = time.monotonic()
    with open(log, "w") as output:
        child = subprocess.Popen(
            words, cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while child.poll() is None:
                meanwhile()
                time.sleep(1)
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise
    meanwhile()
    if child.returncode:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}:\n{log.read_text()[-6000:]}")
    return time.monotonic() - began


def wait_for(condition, what: str):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > 60:
            sys.exit(f"{what}: not there after 60 s")
        time.sleep(0.5)


def kill(process: psutil.Process):
    with suppress(psutil.NoSuchProcess):
        process.kill()


def parents(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.parents()
    return []


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    os.nice(10)
    install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="modvar-slurm-") as name:
        Path(name).chmod(0o755)
        (ROOT / "benchmarks" / "slurm.md").write_text(prove(Path(name)))
    print("Recorded in benchmarks/slurm.md")
