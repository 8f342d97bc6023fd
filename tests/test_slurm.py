"""The cluster's profile, without a Slurm; tests/slurm/prove.py runs a study through a real one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from modvar_lib import data
from modvar_lib.config import read_config

PROFILE = yaml.safe_load((data.ROOT / "profiles" / "slurm" / "config.yaml").read_text())


def test_every_job_gets_its_resources(results):
    """All options are known to Snakemake and its executor; every rule named exists; groups get the
    defaults, and the cores."""
    words = ["snakemake", "-n", "--workflow-profile", "profiles/slurm", "--quiet", "host"]
    env = {**os.environ, "MODVAR_CONFIG": "config/smoke.yaml"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(
        words, cwd=data.ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {}
    for rule, block in re.findall(
        r"^rule (\w+):\n((?: {4}.*\n)+)", done.stdout + done.stderr, re.MULTILINE
    ):
        numbers = re.findall(r"\b(threads|mem_mb|runtime|gpu)[:=] ?(\d+)", block)
        jobs.setdefault(rule, []).append({name: int(number) for name, number in numbers})
    named, defaults = PROFILE["set-resources"], PROFILE["default-resources"]
    assert set(jobs) == {"all", "group", *named}
    assert len(jobs["group"]) == len(read_config(data.ROOT / "config" / "smoke.yaml").groups)
    for rule, resources in (
        (rule, one) for rule, several in jobs.items() for one in several if rule != "all"
    ):
        assert (defaults | named.get(rule, {})).items() <= resources.items(), rule
        assert resources.get("threads", 1) == (PROFILE["max-threads"] if rule == "group" else 1)


def test_what_a_study_needs_anywhere_is_in_both_profiles():
    default = yaml.safe_load((data.ROOT / "profiles" / "default" / "config.yaml").read_text())
    assert {name for name in default if PROFILE.get(name) != default[name]} == {
        "cores",
        "retries",
        "quiet",
    }
