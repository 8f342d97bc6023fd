"""Run a study on a real Slurm, with faults, and on this machine alone, and compare: python tests/slurm/prove.py

Needs root on Debian; installs its slurm-wlm and munge if they are absent. Starts a munged, a slurmctld and three slurmds with a
key and ports of their own, and ends them, and them alone; refuses where /etc/slurm has a slurm.conf. Writes benchmarks/slurm.md.
About 20 minutes on 2 cores, at low priority.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
SNAKEMAKE_LOGS = ROOT / ".snakemake" / "log"
DAEMONS = ("munged", "slurmctld", "slurmd")
ETC = Path("/etc/slurm")
NODES = ("n1", "n2", "n3")
STUDY = {
    "study": "proof",
    "dataset": "MNIST",
    "architecture": ["mlp"],
    "regime": ["fixed", "varying"],
    "seeds": "0-3",
    "group_size": 2,
    "epochs": 60,
    "period": 10,
    "final_epochs": 10,
    "pairs_per_epoch": 20000,
    "device": "cpu",
}
SWITCHES = STUDY | {"study": "switches", "regime": "fixed", "seeds": 0, "epochs": 10, "period": 5}
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
# a dead node is missed after 20 seconds instead of 300; nodes say what is written here, whatever the machine has
SlurmdTimeout=20
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=second Nodes=ALL MaxTime=INFINITE
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=32000 Gres=gpu:1"


class Cluster:
    """munged, slurmctld and a slurmd a node, as children of this process. Everything of theirs is in one folder, but for links in
    /etc/slurm: Snakemake's executor drops SLURM_CONF on the nodes, so configuration has to be where Slurm looks for it."""

    def __init__(self, folder: Path):
        self.folder, self.children, self.jobs = folder, {}, {}
        self.mark = {
            "MODVAR_PROOF": str(folder)
        }  # daemons and jobs inherit it, and are known by it
        self.env = {**os.environ, **self.mark}
        self.links = [ETC / "slurm.conf", ETC / "gres.conf"]

    def __enter__(self):
        if there := [str(link) for link in self.links if os.path.lexists(link)]:
            sys.exit(
                f"{' '.join(there)}: there already; allowed: a machine without a Slurm of its own"
            )
        ports, host = free_ports(1 + len(NODES)), socket.gethostname().split(".")[0]
        nodes = [NODE.format(name=n, host=host, port=p) for n, p in zip(NODES, ports[1:])]
        conf = SLURM_CONF.format(folder=self.folder, host=host, ports=ports, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text(
            "Name=gpu File=/dev/null\n"
        )  # some file; Slurm only counts
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        (self.folder / "state").mkdir()
        for link in self.links:
            link.symlink_to(self.folder / link.name)
        options = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
        try:
            self.start(
                "munged",
                "--foreground",
                f"--socket={self.folder}/munge.socket",
                "--force",
                *options,
            )
            wait_for(lambda: (self.folder / "munge.socket").exists(), 10, "munged")
            self.start("slurmctld", "-D")
            for name in NODES:
                self.start("slurmd", "-D", "-N", name, name=name)
            wait_for(lambda: self.idle() == len(NODES), 60, "the nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for child in reversed(self.children.values()):
            child.terminate()
        for child in reversed(self.children.values()):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for process in self.processes():
            kill(process)
        for link in self.links:
            link.unlink(missing_ok=True)

    def start(self, *words, name=None):
        with open(self.folder / f"{name or words[0]}.log", "w") as log:
            self.children[name or words[0]] = subprocess.Popen(
                words, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def ask(self, *words) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    def idle(self) -> int:
        return self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split().count("idle")

    def look(self):
        """What Slurm knows of every job, kept after it forgets; of one that starts again, also the first submission and node."""
        for line in self.ask("scontrol", "show", "job", "-o").splitlines():
            job = dict(part.split("=", 1) for part in line.split() if "=" in part)
            if "JobId" in job:
                old = self.jobs.get(job["JobId"], {})
                job["FirstSubmit"] = old.get("FirstSubmit", job["SubmitTime"])
                job["Nodes"] = old.get("Nodes", ())
                if job["JobState"] == "RUNNING" and job["NodeList"] not in job["Nodes"]:
                    job["Nodes"] += (job["NodeList"],)
                self.jobs[job["JobId"]] = job

    def processes(self, **wanted) -> list[psutil.Process]:
        """What this cluster started, with this in its environment too."""
        wanted, found = {**self.mark, **wanted}, []
        for process in psutil.process_iter():
            try:
                if wanted.items() <= process.environ().items():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill_node(self, name: str):
        """As if its power had gone: the slurmd, then what watches over the jobs, then the jobs."""
        self.children[name].kill()
        jobs = self.processes(SLURMD_NODENAME=name)
        above = {p.pid: p for job in jobs for p in parents(job) if p.name() == "slurmstepd"}
        for process in [*above.values(), *jobs]:
            kill(process)

    def training(self, besides) -> tuple[str, dict, str] | None:
        """A job in the middle of training: its number, what Slurm knows, the last line of progress."""
        for number, job in self.jobs.items():
            log = Path(job.get("StdOut", ""))
            if number in besides or job["JobState"] != "RUNNING" or not log.is_file():
                continue
            said = re.findall(r"epoch (\d+)/\d+", log.read_text())
            if said and STUDY["epochs"] * 0.15 <= int(said[-1]) <= STUDY["epochs"] * 0.8:
                return number, job, f"epoch {said[-1]} of {STUDY['epochs']}"
        return None


def node_dies(cluster: Cluster, number: str, job: dict) -> str:
    node = job["NodeList"]
    cluster.kill_node(node)
    return f"node {node} dies: SIGKILL to its slurmd, its slurmstepds and all processes of job {number}; it does not come back"


def job_is_killed(cluster: Cluster, number: str, job: dict) -> str:
    kernels = [
        process
        for process in cluster.processes(SLURM_JOB_ID=number)
        if "ipykernel_launcher" in " ".join(process.cmdline())
    ]
    for process in kernels:
        kill(process)
    return f"SIGKILL to the notebook kernel of job {number} ({len(kernels)} process)"


def job_is_cancelled(cluster: Cluster, number: str, job: dict) -> str:
    cluster.ask("scancel", number)
    return f"scancel of job {number}"


FAULTS = [node_dies, job_is_killed, job_is_cancelled]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "slurm.md")
    parser.add_argument("--keep", action="store_true", help="the folder with results and logs")
    args = parser.parse_args()
    os.nice(10)
    install()
    folder = Path(tempfile.mkdtemp(prefix="modvar-slurm-"))
    folder.chmod(0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        args.out.write_text(prove(folder))
        print(f"Recorded in {args.out}")
    finally:
        if args.keep:
            print(f"Kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def prove(folder: Path) -> str:
    """Both runs, the faults, the comparison; the record, in Markdown."""
    configs = {}
    for config in (STUDY, SWITCHES):
        configs[config["study"]] = folder / f"{config['study']}.yaml"
        configs[config["study"]].write_text(yaml.safe_dump(config))
    # make's own set-up is skipped: the environment is the one that this runs in
    make = ["make", "-o", ".venv/ready", "reproduce", f"CONFIG={configs['proof']}"]
    costly = ["--configfile", str(configs["switches"])]

    print("1. On this machine alone", flush=True)
    local = {**os.environ, "MODVAR_RESULTS": str(folder / "local")}
    local_seconds = run(make, local, folder / "local.txt")
    run(
        ["snakemake", relative(folder / "local/switches/costly.csv"), *costly],
        local,
        folder / "local2.txt",
    )

    print("2. Through Slurm, with faults", flush=True)
    with Cluster(folder) as cluster:
        cluster.env["MODVAR_RESULTS"] = str(folder / "slurm")
        faults, besides = [], set()
        before = set(SNAKEMAKE_LOGS.glob("*.log"))

        def fault():
            cluster.look()
            if len(faults) < len(FAULTS) and (found := cluster.training(besides)):
                number, job, epoch = found
                said = FAULTS[len(faults)](cluster, number, job)
                faults.append((time.time(), f"{said}; it was training, at {epoch}"))
                print(f"   {faults[-1][1]}", flush=True)
                besides.add(number)

        began = time.time()
        slurm_seconds = run([*make, "PROFILE=slurm"], cluster.env, folder / "slurm.txt", fault)
        log = (set(SNAKEMAKE_LOGS.glob("*.log")) - before).pop().read_text()
        jobs, cluster.jobs = cluster.jobs, {}
        nodes = cluster.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()

        print("3. The settings that are off as shipped", flush=True)
        switched = folder / "switched"
        switched.mkdir()
        text = PROFILE.read_text()
        for name, value in {"slurm_partition": "second", "gpu": "1"}.items():
            text, count = re.subn(rf"# {name}: \S+", f"{name}: {value}", text, count=1)
            assert count == 1, name
        (switched / "config.yaml").write_text(text)
        target = relative(folder / "slurm/switches/costly.csv")
        words = ["snakemake", target, "--workflow-profile", str(switched), *costly]
        run(words, cluster.env, folder / "slurm2.txt", cluster.look)
        switched_jobs = cluster.jobs

    same = compared(folder / "local" / "proof", folder / "slurm" / "proof")
    target = [folder / side / "switches" / "costly.csv" for side in ("local", "slurm")]
    same["switches/costly.csv"] = target[0].read_bytes() == target[1].read_bytes()
    unequal = [name for name, is_same in same.items() if not is_same]
    table = jobs_table(jobs, log, folder / "slurm" / "proof")
    record = RECORD.format(
        date=f"{datetime.now():%Y-%m-%d}",
        versions=", ".join(versions()),
        cores=len(os.sched_getaffinity(0)),
        threads=min(8, len(os.sched_getaffinity(0))),
        settings=yaml.safe_dump(STUDY, sort_keys=False, default_flow_style=True, width=110).strip(),
        faults="\n".join(f"- after {when - began:.0f} s: {what}" for when, what in faults),
        nodes=", ".join(nodes),
        jobs=table.to_markdown(index=False),
        local=f"{local_seconds / 60:.1f}",
        slurm=f"{slurm_seconds / 60:.1f}",
        overhead=overhead(table),
        switched="\n".join(
            f"- `{rule_of(job)}`: partition {job['Partition']}, {asked(job)}, {job['JobState']}"
            for number, job in switched_jobs.items()
            if number not in jobs
        ),
        verdict=f"**NOT EQUAL**: {', '.join(unequal)}. Equal"
        if unequal
        else "**Equal, byte for byte**",
        tables=", ".join(f"`{name}`" for name in same if same[name] and "/" not in name),
        runs=sum(is_same for name, is_same in same.items() if name.endswith(".safetensors")),
    )
    print(record)
    if unequal or len(faults) < len(FAULTS):
        sys.exit(f"failed: unequal {unequal}; faults {len(faults)} of {len(FAULTS)}")
    return record


RECORD = """\
# On a real Slurm

Written by `python tests/slurm/prove.py` on {date}: {versions}.

One machine of {cores} cores; a slurmctld and three slurmds that say they have 8 cores, 32 GB and a GPU each. Slurm's timing is
its default, but for `SlurmdTimeout`: 20 instead of 300 s, so that a dead node is missed soon. There is no accounting (slurmdbd):
states and times are what `scontrol` said while the jobs ran.

The study, on real MNIST, with notebooks 01 to 04:

```
{settings}
```

First `make reproduce` on this machine alone, then `make reproduce PROFILE=slurm` with `profiles/slurm` as shipped, into another
folder. Both give a group of 2 seeds {threads} threads, here and on the nodes: a group cut into other lots differs in rounding.

## Faults

{faults}

Nodes at the end: {nodes}.

## Result

{verdict}: {tables}; `history.csv` and `weights.safetensors` of {runs} runs; and `costly.csv` of the last section.
Of the study's `runs.csv` only the columns that are settings are compared: the others say when, by what and how long.

Local: {local} min. Through Slurm, with the faults, three jobs at once on the same cores: {slurm} min.

## Jobs

{jobs}

Seconds. *waited*: from submission to Slurm's (last) start. *ran*: from there to Slurm's end. *notebook*: of that, papermill's own
time. *noticed*: from the end to Snakemake's message that the job is done or has failed. A job whose node died is started again by
Slurm itself, which first misses the node and then holds the job back for two minutes; the others are sent again by Snakemake.

## What it costs a job

{overhead}

A group of 8 seeds trains for minutes or more, so this is small there; for groups that train for seconds, one machine is faster.

## Settings that are off as shipped

A copy of the profile with `slurm_partition: second` and `gpu: 1`, for one network and rule `costly`. The GPUs are Slurm's
arithmetic: there are none in the machine.

{switched}
"""


def compared(local: Path, slurm: Path) -> dict[str, bool]:
    """Whether a study's tables and networks are the same, byte for byte; of runs.csv the settings alone."""
    tables = [pd.read_csv(side / "runs.csv").loc[:, :"finished"] for side in (local, slurm)]
    texts = [table.drop(columns="finished").to_csv(index=False) for table in tables]
    same = {"runs.csv": texts[0] == texts[1]}
    for pattern in ("*.csv", "*.md", "runs/*/*/history.csv", "runs/*/*/weights.safetensors"):
        for here in sorted(set(local.glob(pattern)) - {local / "runs.csv"}):
            there = slurm / here.relative_to(local)
            same[str(here.relative_to(local))] = (
                there.is_file() and here.read_bytes() == there.read_bytes()
            )
    return same


def jobs_table(jobs: dict, log: str, study: Path) -> pd.DataFrame:
    """A row a job: what Slurm said, and when Snakemake noticed."""
    noticed, number_of, now = {}, {}, None
    for line in log.splitlines():
        if stamp := re.match(r"\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]", line):
            now = datetime.strptime(stamp[1], "%a %b %d %H:%M:%S %Y")
        if found := re.search(r"Job (\d+) has been submitted with SLURM jobid (\d+)", line):
            number_of[found[1]] = found[2]
        if found := re.search(r"Finished jobid: (\d+)", line):
            noticed.setdefault(number_of.get(found[1]), now)
        if found := re.search(r"external_jobid: (\d+)|SLURM-job '(\d+)' failed", line):
            noticed.setdefault(found[1] or found[2], now)
    rows = []
    for number, job in sorted(jobs.items(), key=lambda item: int(item[0])):
        submitted, started, ended = (
            datetime.fromisoformat(job[name]) if job.get(name, "Unknown")[:2] == "20" else None
            for name in ("FirstSubmit", "StartTime", "EndTime")
        )
        rule, seen = rule_of(job), noticed.get(number)
        rows.append(
            {
                "job": number,
                "rule": rule,
                "node": ", then ".join(job["Nodes"] or (job["NodeList"],)),
                "state": job["JobState"],
                "restarts": job["Restarts"],
                "waited": seconds(submitted, started),
                "ran": seconds(started, ended),
                "notebook": notebook_seconds(study, rule) if job["JobState"] == "COMPLETED" else "",
                "noticed": seconds(ended, seen),
            }
        )
    return pd.DataFrame(rows)


def overhead(table: pd.DataFrame) -> str:
    whole = table[(table["state"] == "COMPLETED") & (table["restarts"] == "0")]

    def middle(values):
        values = [float(value) for value in values if value != ""]
        return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"

    inside = [row.ran - row.notebook for row in whole.itertuples() if row.notebook != ""]
    return (
        f"Medians over the {len(whole)} jobs that no fault hit (lowest to highest), in seconds. Submission to start: "
        f"{min(whole['waited'])} where a node is free; the rest is queueing. Two starts of Snakemake on the node and "
        f"papermill's start: {middle(inside)}. End to noticed: {middle(whole['noticed'])}, by the profile's interval."
    )


def notebook_seconds(study: Path, rule: str) -> float | str:
    """Papermill's time of the notebook that a rule executed."""
    group = rule.removeprefix("train_").replace("_", "-")
    names = {"data": "01_data", "metric": "03_metric"}
    name = f"02_train-{group}" if rule.startswith("train_") else names.get(rule, rule)
    path = study / "notebooks" / f"{name}.ipynb"
    return (
        round(nbformat.read(path, as_version=4).metadata.papermill.duration)
        if path.is_file()
        else ""
    )


def rule_of(job: dict) -> str:
    return job.get("Comment", "").removeprefix("rule_")


def asked(job: dict) -> str:
    gpus = re.search(r"gpu:(\d+)", job.get("TresPerJob", ""))
    return f"cores {job['NumCPUs']}, GPUs {gpus[1] if gpus else 0}"


def seconds(begin, end) -> int | str:
    return round((end - begin).total_seconds()) if begin and end else ""


def versions() -> list[str]:
    slurm = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout
    munge = subprocess.run(["munged", "-V"], capture_output=True, text=True).stdout
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    packages = ("snakemake", "snakemake-executor-plugin-slurm", "papermill", "torch")
    return [
        release["PRETTY_NAME"].strip('"'),
        " ".join(slurm.split()),
        munge.split("(")[0].strip(),
        *(f"{name} {version(name)}" for name in packages),
    ]


def install():
    if all(map(shutil.which, DAEMONS)):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"{', '.join(DAEMONS)}: not found; allowed: root on Debian, which installs them")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-qq", "slurm-wlm", "munge"], env=env, check=True)


def run(words: list[str], env: dict, log: Path, meanwhile=lambda: None) -> float:
    """Run a command in the project, calling `meanwhile` every second or so; seconds it took."""
    env = {**env, "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    began = time.monotonic()
    with open(log, "w") as said:
        child = subprocess.Popen(words, cwd=ROOT, env=env, stdout=said, stderr=said)
        try:
            while child.poll() is None:
                meanwhile()
                time.sleep(1)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    meanwhile()
    if child.returncode:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}:\n{log.read_text()[-6000:]}")
    return time.monotonic() - began


def wait_for(condition, limit: float, what: str):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            sys.exit(f"{what}: not there after {limit} s")
        time.sleep(0.5)


def kill(process: psutil.Process):
    try:
        process.kill()
    except psutil.NoSuchProcess:
        pass


def parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.NoSuchProcess:
        return []


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def relative(path: Path) -> str:
    return os.path.relpath(path, ROOT)


if __name__ == "__main__":
    main()
